"""The launcher `hydra/launcher=processes`: train the model of a job in several processes of this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from datamix import errors
from datamix.config.quoting import in_quotes
from datamix.errors import ConfigError, ResourceError
from datamix.report.files import REPORT
from datamix.sweeps.preparing import config_flags
from datamix.training.processes import LAUNCHED

_GRACE_S = 20.0  # how long the others may take to end by themselves after one has failed
_POLL_S = 0.05


def check_number(num_processes: object) -> None:
    """Check the setting `hydra.launcher.num_processes`.

    Raises:
      ConfigError: It is not a whole number of 1 or more.
    """
    if type(num_processes) is not int or num_processes < 1:
        raise ConfigError("it is a whole number, 1 or more", key="hydra.launcher.num_processes", value=num_processes)


def work_of(num_processes: int, node: DictConfig, otherwise: Callable[[DictConfig], dict[str, Any]]) -> dict[str, Any]:
    """Run the job of the current Hydra context in several processes, each with its own command line.

    They train together, see `datamix.training.processes`; the first one prints and writes the results.

    Args:
      num_processes: The number of processes.
      node: The composed configuration.
      otherwise: The function that runs a job that does not train a model.

    Returns:
      The report of the job.

    Raises:
      DatamixError: The job has ended with this error.
      ResourceError: A signal has killed a process.
      SystemExit: A process was interrupted or terminated.
      RuntimeError: A process has ended with another error, which is printed.
    """
    if "train" not in node:
        return otherwise(node)
    hydra: Any = HydraConfig.get()
    directory = Path(hydra.runtime.output_dir)
    place = f"hydra.run.dir={in_quotes(str(directory))}"
    overrides = [place, "hydra.output_subdir=null", f"train.resume={node.train.resume}"]
    command = [sys.executable, "-m", "datamix", *config_flags(hydra)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    common = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(num_processes), LAUNCHED: "1"}
    # Without these, gRPC would reach this very machine through a proxy, and an error might be more than a line.
    common |= {"no_grpc_proxy": "127.0.0.1", "HYDRA_FULL_ERROR": ""}
    sys.stdout.flush()
    with ExitStack() as stack:
        stderr_files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(num_processes)]
        processes: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, processes)
        for rank in range(num_processes):
            process = subprocess.Popen(
                [*command, *hydra.overrides.task, *overrides],
                cwd=hydra.runtime.cwd,
                env={"JAX_LOCAL_DEVICE_IDS": str(rank)} | os.environ | common | {"JAX_PROCESS_ID": str(rank)},
                stdin=subprocess.PIPE,
                stdout=sys.stdout if rank == 0 else subprocess.DEVNULL,
                stderr=stderr_files[rank],
                start_new_session=True,  # Ctrl-C reaches only this process, which ends the others
            )
            processes.append(process)
        first = _wait(processes)
        texts = [_text(file) for file in stderr_files]
        first = first if texts[first] or processes[first].returncode < 0 else 0  # the first process reports for all
        if processes[first].returncode:
            raise _failure(first, len(processes), processes[first].returncode, texts[first])
        sys.stderr.write(texts[0])
    report: dict[str, Any] = json.loads((directory / REPORT).read_bytes())
    return report


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait until all have ended, or `_GRACE_S` after the first failure; returns the rank of that failure, or 0."""
    first, until = 0, float("inf")
    while any([process.poll() is None for process in processes]) and time.monotonic() < until:  # noqa: C419  # poll all
        bad = [rank for rank, process in enumerate(processes) if process.returncode]
        if bad and until == float("inf"):
            first, until = bad[0], time.monotonic() + _GRACE_S
        time.sleep(_POLL_S)
    return first if processes[first].returncode else next((r for r, p in enumerate(processes) if p.returncode), 0)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the running processes by SIGTERM, which lets them save a checkpoint; if one has failed, or again, at once."""
    running = [process for process in processes if process.poll() is None]
    try:
        if not any(process.returncode for process in processes):
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                process.wait()
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _failure(rank: int, count: int, code: int, text: str) -> BaseException:
    """The exception for a process that has failed."""
    kind, _, rest = text.strip().rpartition("\n")[2].partition(": ")
    if code == 2 and (mistake := errors.of_kind(kind, rest if rank == 0 else f"process {rank}: {rest}")):
        return mistake
    if code in (128 + signal.SIGTERM, 128 + signal.SIGINT):
        return SystemExit(code)
    sys.stderr.write(text)
    if code < 0:
        text = f"process {rank} of {count} was ended by {signal.Signals(-code).name}"
        return ResourceError(f"{text}; sweep.resume=true goes on from its last checkpoint.")
    return RuntimeError(f"process {rank} of {count}: {kind}: {rest}")
