"""Finds a prepared TFDS dataset, or downloads and prepares it, in bounded time and without leftovers if that fails.

Without a network, TFDS retries silently for minutes, and it leaves behind whatever it has begun. So the network is
tested first, and a child process, which can be watched and killed, does the work in a directory that is deleted unless
the dataset in it was finished. `python -m datamix.sources.tfds.prepare` is that child.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from datamix.errors import ConfigError, DataError, prepare_hint
from datamix.interruption import ended_by
from datamix.sources.base import Unavailable
from datamix.sources.cache import locked

NETWORK_URL = "https://storage.googleapis.com/tfds-data/community-datasets-list.jsonl"
_REMEMBER_S = 60.0  # before a network that did not answer is tested again
_TEMPORARY = ".datamix-prepare-"
_NAME = re.compile(r"(?P<dataset>\w+)(?:/(?P<config>\w[\w.+=,-]*))?(?::(?P<version>\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
dead_network: tuple[float, str] | None = None
"""When the network was tested in vain, and the reason; it is not tested again for a while."""


@dataclass(frozen=True)
class Name:
    """A dataset's name in TFDS's syntax, split into its parts."""

    dataset: str
    config: str | None
    version: str | None

    @classmethod
    def parse(cls, text: str) -> Name:
        """Split `emnist/letters:3.1.0` into its parts.

        >>> Name.parse("emnist/letters:3.1.0")
        Name(dataset='emnist', config='letters', version='3.1.0')
        """
        match = _NAME.fullmatch(text)
        if match is None:
            mend = "Write mnist, emnist/letters or mnist:3.0.1."
            raise ConfigError("it is no TFDS dataset", key="name", value=text, hint=mend)
        return cls(match["dataset"], match["config"], match["version"])

    def __str__(self) -> str:
        config, version = f"/{self.config}" if self.config else "", f":{self.version}" if self.version else ""
        return f"{self.dataset}{config}{version}"


def find_prepared(name: Name, data_dir: Path) -> Path | None:
    """The directory of a prepared dataset, by default of its default config and highest version; None if missing."""
    directory = data_dir / name.dataset
    if name.config:
        return _version_in(directory / name.config, name.version)
    if versioned := _version_in(directory, name.version):
        return versioned
    try:
        default = json.loads((directory / ".config" / "metadata.json").read_bytes())["default_config_name"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return _version_in(directory / str(default), name.version)


def prepared_names(dataset: str, data_dir: Path) -> list[str]:
    """All prepared configs and versions of a dataset, as a user names them: emnist/letters:3.1.0."""
    directory = data_dir / dataset
    try:
        inside = sorted(path for path in directory.iterdir() if path.is_dir())
        configs = [path for path in inside if _NAME.fullmatch(f"{dataset}/{path.name}")]
        deeper = [path for config in configs for path in sorted(config.iterdir()) if path.is_dir()]
    except OSError:
        return []
    versions = [path for path in (*inside, *deeper) if _VERSION.fullmatch(path.name)]
    return [f"{path.parent.relative_to(data_dir).as_posix()}:{path.name}" for path in versions]


def _version_in(directory: Path, version: str | None) -> Path | None:
    try:
        versions = [path for path in directory.iterdir() if _VERSION.fullmatch(path.name) and path.is_dir()]
    except OSError:
        return None
    versions = [path for path in versions if version in (None, path.name)]
    return max(versions, key=lambda path: [int(part) for part in path.name.split(".")], default=None)


def prepare(
    name: str,
    data_dir: Path,
    *,
    url: str | None = None,
    wait_s: float = 5.0,
    stall_s: float = 60.0,
    module: str = "tensorflow_datasets",
) -> Path:
    """Download a dataset and prepare it as array_record, unless another process has done so meanwhile.

    Args:
      data_dir: The directory of all datasets; it is made where it is missing.
      url: One of the dataset's own files, requested first; by default, any answer from the network is enough.
      wait_s: The time to wait for the answer, in seconds.
      stall_s: The longest time, in seconds, in which preparing may write and compute nothing.
      module: The module to import that registers the dataset with TFDS.

    Returns:
      The directory of the prepared dataset.

    Raises:
      Unavailable: TensorFlow is not installed, no network answers, or TFDS failed; `data_dir` is left as it was.
    """
    refused = functools.partial(unavailable, name, data_dir)
    if importlib.util.find_spec("tensorflow") is None:
        raise refused("preparing it needs TensorFlow, which is not installed")
    if reason := unreachable(url, wait_s):
        raise refused(reason)
    parsed = Name.parse(name)
    try:
        is_handled = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        with contextlib.nullcontext() if is_handled else ended_by(signal.SIGTERM), _made(data_dir), _locked(data_dir):
            if directory := find_prepared(parsed, data_dir):
                return directory
            for left_over in data_dir.glob(f"{_TEMPORARY}*"):  # of a process that was killed
                shutil.rmtree(left_over, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=data_dir) as temporary:
                if reason := _run_child(name, Path(temporary), data_dir, module, stall_s):
                    raise refused(reason)
                return _move(parsed, Path(temporary, "data"), data_dir)
    except OSError as error:
        raise refused(f"{data_dir} cannot be written: {error}") from error


def unavailable(name: str, data_dir: Path, reason: str) -> Unavailable:
    """The error that says why a dataset is not available, and what a user can do."""
    where = f"{data_dir}" if data_dir.is_dir() else f"{data_dir} (there is no such directory)"
    if others := prepared_names(Name.parse(name).dataset, data_dir):
        where += f", where there is {', '.join(others)}"
    tried = f"not prepared in {where}, and could not be prepared: {reason}"
    mend = f"Point data_dir at a directory that holds it prepared, or {prepare_hint()}."
    return Unavailable(f"{name}: {tried}. {mend}", tried)


def unreachable(url: str | None, wait_s: float) -> str | None:
    """Why `url` cannot be reached; None if it can. A network that answers late or never is not tested again soon."""
    global dead_network
    if dead_network and time.monotonic() < dead_network[0] + _REMEMBER_S:
        return dead_network[1]
    start = time.monotonic()
    answer: list[str | None] = []
    # In a thread, since the time to look up a host's name cannot be bounded in any other way.
    asking = threading.Thread(target=lambda: answer.append(ask(url, wait_s)), daemon=True)
    asking.start()
    asking.join(wait_s)
    reason = answer[0] if answer else f"no answer from {url or NETWORK_URL} within {wait_s:g} s"
    if reason and not reason.startswith("HTTP") and time.monotonic() > start + wait_s / 4:
        dead_network = (time.monotonic(), reason)
    return reason


def ask(url: str | None, wait_s: float) -> str | None:
    """Request one byte of `url`, by default any answer from the network; return why that failed, or None."""
    import http.client
    import urllib.error
    import urllib.request

    try:
        request = urllib.request.Request(url or NETWORK_URL, headers={"Range": "bytes=0-0", "User-Agent": "datamix"})
        # `urlopen` would keep the proxies of its first call, even if the environment has others by now.
        with urllib.request.build_opener().open(request, timeout=wait_s) as response:
            response.read(1)
    except urllib.error.HTTPError as error:
        error.close()
        # Without a file of the dataset, any answer shows that there is a network.
        return f"HTTP {error.code} {error.reason} from {url}" if url else None
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"{url or NETWORK_URL}: {getattr(error, 'reason', error)}"
    return None


@contextlib.contextmanager
def _made(directory: Path) -> Iterator[None]:
    """Make a directory and its parents; remove again those that were made if the body raises."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # not empty: another process is working there
            for path in missing:
                path.rmdir()
        raise


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    with locked(data_dir / _TEMPORARY[:-1]):
        try:
            yield
        finally:  # while the lock is held; a waiting process notices that, and locks a new file
            (data_dir / f"{_TEMPORARY[:-1]}.lock").unlink(missing_ok=True)


def _run_child(name: str, temporary: Path, data_dir: Path, module: str, stall_s: float) -> str | None:
    """Prepare `name` under `temporary` in a child process; return why that failed, or None."""
    data = temporary / "data"
    task = {"name": name, "module": module, "data_dir": str(data), "manual_dir": str(data_dir / "downloads" / "manual")}
    path = os.pathsep.join(filter(None, sys.path))
    environment = os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    log = temporary / "log"  # not under data: TFDS's progress bars write even when nothing progresses
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "datamix.sources.tfds.prepare", json.dumps(task)],
            stdin=subprocess.PIPE,  # kept open: the child ends itself once this process is gone
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            if _stalls(child, name, data, stall_s):
                return f"preparing it came to a halt: nothing was written or computed for {stall_s:g} s"
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    if child.returncode == 0:
        return None
    if child.returncode < 0:
        return f"preparing it was ended by signal {-child.returncode}"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"TFDS failed: {lines[-1].strip().rstrip('.')}" if lines else f"TFDS ended with {child.returncode}"


def _stalls(child: subprocess.Popen[bytes], name: str, directory: Path, stall_s: float) -> bool:
    """Wait for the child and show its progress; True if there is none for `stall_s` seconds, False if it ends."""
    import psutil
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        print(f"Downloading and preparing {name} …", file=sys.stderr, flush=True)
    start = moved = time.monotonic()
    last_bytes, last_cpu_s = 0, 0.0
    with console.status(f"Downloading and preparing {name} …") as status:
        while time.monotonic() < moved + stall_s:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=min(1.0, stall_s / 4))
                return False
            num_bytes, cpu_s = _num_bytes(directory), last_cpu_s
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(child.pid)
                cpu_s = sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))
            # Endless retries take a little CPU time too, so up to a twentieth of the time does not count.
            if num_bytes != last_bytes or cpu_s > last_cpu_s + stall_s / 20:
                moved, last_bytes, last_cpu_s = time.monotonic(), num_bytes, cpu_s
            elapsed_s = time.monotonic() - start
            status.update(f"Downloading and preparing {name}: {num_bytes / 1e6:,.1f} MB, {elapsed_s:.0f} s")
    return True


def _num_bytes(directory: Path) -> int:
    total = 0
    for parent, _, files in os.walk(directory):
        for file in files:
            with contextlib.suppress(OSError):  # gone meanwhile
                total += os.stat(os.path.join(parent, file)).st_size  # noqa: PTH116, PTH118 - many files, each second
    return total


def _move(name: Name, temporary: Path, data_dir: Path) -> Path:
    directory = find_prepared(name, temporary)
    if directory is None:
        raise DataError(f"TFDS prepared {name.dataset} and left nothing behind.")
    notes = Path(name.dataset, ".config", "metadata.json")  # says which config is the default
    if (temporary / notes).exists() and not (data_dir / notes).exists():
        (data_dir / notes).parent.mkdir(parents=True, exist_ok=True)
        (temporary / notes).replace(data_dir / notes)
    target = data_dir / directory.relative_to(temporary)
    target.parent.mkdir(parents=True, exist_ok=True)
    return directory.replace(target)


def _main(task: dict[str, str]) -> None:
    sys.excepthook = _report
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import tensorflow_datasets as tfds

    importlib.import_module(task["module"])
    builder = tfds.builder(task["name"], data_dir=task["data_dir"], file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=task["manual_dir"])
    builder.download_and_prepare(download_dir=Path(task["data_dir"], "downloads"), download_config=config)


def _end_with_parent() -> None:
    os.read(0, 1)  # returns when the parent is gone, however it ended
    os.killpg(0, signal.SIGKILL)


def _report(kind: type[BaseException], error: BaseException, _traceback: TracebackType | None) -> None:
    """Print one line and exit at once: a normal exit would wait for TFDS's other downloads."""
    print(f"\n{kind.__name__}: {textwrap.shorten(str(error), 300)}", file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
