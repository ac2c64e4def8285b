"""Run jobs from Python, such as from a notebook: each is a command line in a new process, whose results are read."""

from __future__ import annotations

import base64
import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Never

from datamix import errors
from datamix.config.quoting import in_quotes


@dataclass(frozen=True)
class Ran:
    """A job or a sweep that was run; a notebook shows its figures.

    Attributes:
      directory: The directory of its files.
      report: The contents of its `report.json`, or of the `sweep.json` of a sweep.
    """

    directory: Path
    report: Any = field(repr=False)

    def _repr_html_(self) -> str:
        images = [base64.b64encode(path.read_bytes()).decode() for path in sorted(self.directory.glob("*.png"))]
        return "".join(f'<img src="data:image/png;base64,{image}" style="max-width:100%">' for image in images)


def run(*arguments: str, directory: str | Path | None = None, **keywords: Never) -> Ran:
    """Run a command line in a new process, and print its output, except the line of an error that is raised here.

    Args:
      *arguments: The arguments of the command line, such as "job=plan", "source=mnist+fashion" or "-m".
      directory: The directory for the results; None for a new one in `outputs/`.

    Raises:
      DatamixError: The command line ended with this error.
      RuntimeError: The command line ended with another error, which is printed.
    """
    errors.refuse_keywords(keywords)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in ("hydra.run.dir", "hydra.sweep.dir"):
            raise errors.ConfigError("it follows from directory=", key=key, value=value, hint="Give that in its place.")
    directory = _new_directory() if directory is None else Path(directory)
    is_sweep = bool({"-m", "--multirun"} & {*arguments})
    key = f"hydra.{'sweep' if is_sweep else 'run'}.dir"
    place = f"{key}={in_quotes(str(directory))}"
    code, mistake = _printed([sys.executable, "-m", "datamix", *arguments, place])
    if code == 2 and mistake is not None:
        raise type(mistake)(str(mistake).replace(key, "directory"))  # as it is called here
    if code:
        raise RuntimeError(f"datamix {' '.join(arguments)} ended with code {code}; see what it printed")
    report = directory / ("sweep.json" if is_sweep else "report.json")
    return Ran(directory, json.loads(report.read_text(encoding="utf-8")))


def _new_directory() -> Path:
    """A name that no other run has; the command line makes the directory, and removes it again if it stays empty."""
    return Path("outputs", time.strftime("%Y-%m-%d/%H-%M-%S-") + secrets.token_hex(4))


def _printed(command: Sequence[str]) -> tuple[int, errors.DatamixError | None]:
    """Run a command and print its output; returns its exit code, and the error that its last line names.

    The last line is not printed if the exit code says that the command ended with that error.
    """
    last, mistake = "", None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if mistake is not None:  # the line was not the last one
                    print(last, end="", flush=True)
                last, mistake = line, _mistake(line)
                if mistake is None:
                    print(line, end="", flush=True)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)  # a notebook only interrupts its own process
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
    """Run a job for each combination of the values that overrides list, as in "mix.share.mnist=0.1,0.5"; see `run`.

    The job is `job=train`, unless an override names another one.
    """
    job = [] if any(override.startswith("job=") for override in overrides) else ["job=train"]
    return run("-m", *job, *overrides, directory=directory, **keywords)
