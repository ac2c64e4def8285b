"""Jobs run from Python, such as a notebook: each is a command line in a process of its own, whose results are read."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Never

from datamix import errors


@dataclass(frozen=True)
class Ran:
    """A job, or a sweep, that was run; a notebook shows its figures.

    Attributes:
      directory: The directory of all that it has written.
      report: What is in its `report.json`, or in the `sweep.json` of a sweep.
    """

    directory: Path
    report: Any = field(repr=False)

    def _repr_html_(self) -> str:
        images = [base64.b64encode(path.read_bytes()).decode() for path in sorted(self.directory.glob("*.png"))]
        return "".join(f'<img src="data:image/png;base64,{image}" style="max-width:100%">' for image in images)


def run(*arguments: str, directory: str | Path | None = None, **keywords: Never) -> Ran:
    """Run a command line in a process of its own, and print what it prints, but for the mistake that is raised.

    Args:
      *arguments: As on the command line: "job=plan", "source=mnist+fashion", "-m".
      directory: The directory for its results; by default a new one in `outputs/`.

    Raises:
      DatamixError: The command line ends with a mistake; the error is the one that it names.
      RuntimeError: It ends with another error, which is printed.
    """
    errors.refuse_keywords(keywords)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in ("hydra.run.dir", "hydra.sweep.dir"):
            raise errors.ConfigError("it follows from directory=", key=key, value=value, hint="Give that in its place.")
    directory = _new_directory() if directory is None else Path(directory)
    is_sweep = bool({"-m", "--multirun"} & {*arguments})
    place = f"hydra.{'sweep' if is_sweep else 'run'}.dir='{directory}'"
    code, mistake = _printed([sys.executable, "-m", "datamix", *arguments, place])
    if code == 2 and mistake is not None:
        raise mistake
    if code:
        raise RuntimeError(f"datamix {' '.join(arguments)} ended with code {code}; see what it printed")
    report = directory / ("sweep.json" if is_sweep else "report.json")
    return Ran(directory, json.loads(report.read_text(encoding="utf-8")))


def _new_directory() -> Path:
    day = Path("outputs", time.strftime("%Y-%m-%d"))
    day.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=time.strftime("%H-%M-%S-"), dir=day))


def _printed(command: Sequence[str]) -> tuple[int, errors.DatamixError | None]:
    """Run a command and print what it prints; returns its code, and the mistake that its last line names.

    That line is not printed where the code says that a mistake has ended it.
    """
    last, mistake = "", None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if mistake is not None:  # it was not the end
                    print(last, end="", flush=True)
                last, mistake = line, _mistake(line)
                if mistake is None:
                    print(line, end="", flush=True)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)  # a notebook interrupts its own process alone
            raise
    if mistake is not None and process.returncode != 2:
        print(last, end="", flush=True)
    return process.returncode, mistake


def _mistake(line: str) -> errors.DatamixError | None:
    kind, _, text = line.rstrip("\n").partition(": ")
    return errors.of_kind(kind, text)


def train(*overrides: str, directory: str | Path | None = None, **keywords: Never) -> Ran:
    """Train a model on a mix: `job=train` with these overrides; see `run`."""
    return run("job=train", *overrides, directory=directory, **keywords)


def sweep(*overrides: str, directory: str | Path | None = None, **keywords: Never) -> Ran:
    """Run a job for each of the values that overrides list, such as "mix.share.mnist=0.1,0.5"; see `run`.

    The job is `job=train`, unless another one is named.
    """
    job = [] if any(override.startswith("job=") for override in overrides) else ["job=train"]
    return run("-m", *job, *overrides, directory=directory, **keywords)
