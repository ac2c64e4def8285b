"""What many tests share: the real data, TFDS datasets of a few records, and ways to run the command line."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

# With these packages, the names of their components are known, as on the command line.
from datamix import jobs, mixing, operators, sources, training  # noqa: F401
from datamix.registry import registered

ROOT = Path(__file__).resolve().parents[1]

_NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9") | {
    "no_proxy": "",
    "NO_PROXY": "",
}
_RECORDS = 80  # of each small dataset's splits: more than any of them has classes


def pytest_configure(config: pytest.Config) -> None:
    """All processes of a run share what JAX has compiled: else most of the tests' time goes into doing it again.

    A shell's job in the background ignores Ctrl-C, and so would every process that tests start to interrupt it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(OwnRegistry())
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        directory = tempfile.mkdtemp(prefix="datamix-tests-jax-")
        config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))
        os.environ["JAX_COMPILATION_CACHE_DIR"] = directory
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
    # LLVM takes most of the time to optimise programs that run a few times each. CI sets the level that users have.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


class OwnRegistry:
    """Takes back what a test registers, so that no other test sees it; for doctests as well, hence a plugin."""

    @pytest.fixture(autouse=True)
    def _registered(self) -> Iterator[None]:
        with registered():
            yield


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT ends the child processes of a test: those of a process that ignores it, as a background shell's do, would
    ignore it too.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def permissions_count() -> Iterator[None]:
    """What nobody may read cannot be read by root either, as tests may run; the capabilities for it are put away."""
    if os.geteuid():
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root reads everything")
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    assert libc.capget(header, sets) == 0
    before = sets[0]
    sets[0] = before & ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0
    yield
    sets[0] = before
    assert libc.capset(header, sets) == 0


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real MNIST and Fashion-MNIST images as prepared TFDS datasets, and small `.npz` files."""
    path = Path(os.environ.get("DATAMIX_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip("needs the real test data beside the checkout, or DATAMIX_TEST_DATA")
    return path


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def every_dataset(shared_data, tmp_path_factory) -> Path:
    """Every TFDS dataset that conf/ names: the real ones, and noise in the shape that TFDS declares for the others."""
    import tensorflow_datasets as tfds

    data_dir: Path = tmp_path_factory.mktemp("tensorflow_datasets")
    for directory in (shared_data / "tensorflow_datasets").iterdir():
        (data_dir / directory.name).symlink_to(directory)
    for path in sorted((ROOT / "conf" / "dataset").glob("*.yaml")):
        name = str(yaml.safe_load(path.read_text()).get("name", ""))
        if not name or (data_dir / name).exists():
            continue
        declared = tfds.builder(name, data_dir=data_dir)
        tfds.dataset_builders.store_as_tfds_dataset(
            name=declared.name,
            config=declared.builder_config and declared.builder_config.name,
            version=declared.version,
            data_dir=data_dir,
            features=declared.info.features,
            split_datasets={split: list(_noise(declared.info.features)) for split in ("train", "test")},
            file_format="array_record",
        )
    return data_dir


def _noise(features: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    draw = np.random.default_rng(0)
    for record in range(_RECORDS):
        values: dict[str, Any] = {}
        for leaf, feature in features.items():
            if (num_classes := getattr(feature, "num_classes", None)) is not None:
                values[leaf] = record % num_classes
            elif len(feature.shape) == 3:
                values[leaf] = draw.integers(0, 256, feature.shape, np.uint8)
            else:
                values[leaf] = f"text {record}"
        yield record, values


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory) -> Path:
    """A cache of decoded records for all tests that do not look at the cache itself."""
    return tmp_path_factory.mktemp("cache") / "datamix"


@dataclass(frozen=True)
class Ended:
    """How a command line ended: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def reports(self) -> list[dict[str, Any]]:
        """The reports that it says it has written."""
        return [json.loads(Path(path).read_bytes()) for path in re.findall(r"^Report: (.+)$", self.out, re.MULTILINE)]

    @property
    def report(self) -> dict[str, Any]:
        """Its only report, once it ended well."""
        assert (self.code, len(self.reports)) == (0, 1), self.err or self.out
        return self.reports[0]

    @property
    def mistake(self) -> str:
        """The only line of a command line that a user's mistake has ended."""
        assert self.code == 2, self.err or self.out
        (line,) = self.err.splitlines()
        return line


@pytest.fixture(scope="session")
def environment(shared_data, tmp_path_factory, cache_dir) -> dict[str, str]:
    """What a process finds in its environment: this checkout, the real data, a home of its own, no network."""
    import matplotlib

    ours = {
        "HOME": str(tmp_path_factory.mktemp("home")),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "datamix" / "plugins"))),
        "TFDS_DATA_DIR": str(shared_data / "tensorflow_datasets"),
        "XDG_CACHE_HOME": str(cache_dir.parent),
        "MPLCONFIGDIR": matplotlib.get_cachedir(),  # a new one would look for fonts for seconds
    }
    theirs = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    return theirs | _NO_NETWORK | ours


@pytest.fixture(scope="session")
def run_datamix(environment) -> Callable[..., Ended]:
    """Runs `python -m datamix …` in a process of its own."""

    def run(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> Ended:
        command = [sys.executable, "-m", "datamix", *arguments]
        done = subprocess.run(
            command, cwd=cwd, env=environment | (env or {}), capture_output=True, text=True, timeout=120, check=False
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def call_datamix(environment, tmp_path, monkeypatch, capsys) -> Iterator[Callable[..., Ended]]:
    """Runs the command line's own function in this process, in `tmp_path`."""
    from datamix.cli import main

    for key in ("HYDRA_FULL_ERROR", *_NO_NETWORK, "HOME", "TFDS_DATA_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(key, environment.get(key, ""))
    monkeypatch.chdir(tmp_path)
    # Hydra sets logging up anew, which would close the streams of handlers that are not its own: pytest's stderr.
    monkeypatch.setattr(logging, "shutdown", lambda *_: None)
    handlers, level = logging.root.handlers[:], logging.root.level

    def call(*arguments: str) -> Ended:
        code: Any = 0
        try:
            main(arguments)
        except SystemExit as ended:
            code = ended.code or 0
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    yield call
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def call_among_datasets(call_datamix, every_dataset, tmp_path, monkeypatch) -> Callable[..., Ended]:
    """`call_datamix` where every dataset is at home."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "tensorflow_datasets").symlink_to(every_dataset)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(every_dataset))
    return call_datamix
