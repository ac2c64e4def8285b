"""Training in several processes: how they find each other, agree, and end together.

Each runs the same program on the same configuration. What only one of them knows, such as whether a signal has arrived
or which files its disk has, it shares with the others. Importing this module does not import JAX.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn, cast

from omegaconf import DictConfig

from datamix import errors
from datamix.errors import ConfigError, DatamixError, ResourceError, first_line
from datamix.fingerprint import changes

LAUNCHED = "DATAMIX_LAUNCHED"
"""The environment variable that is set for a process of a launcher, which ends when its standard input is closed."""
_COORDINATOR, _COUNT, _RANK = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"

_known_errors: list[DatamixError] = []  # the errors that all processes have already exchanged


def join(*, distributed: bool) -> None:
    """Join the other processes if `train.distributed` or `JAX_COORDINATOR_ADDRESS` in the environment asks for it.

    Args:
      distributed: The setting `train.distributed`.

    Raises:
      ConfigError: Neither the environment nor a cluster that JAX knows names the processes.
      ResourceError: The other processes have not joined.
    """
    if not is_asked(distributed=distributed):
        return
    import jax

    from datamix.pipeline import xla

    if os.environ.get(LAUNCHED):
        threading.Thread(target=_end_with_launcher, daemon=True).start()
        xla.logger_of("distributed").setLevel("ERROR")  # hides warnings about proxies, which are not used here
    numbers = {name: os.environ[name] for name in (_COUNT, _RANK) if name in os.environ}
    if bad := [name for name, value in numbers.items() if not value.isdecimal()]:
        raise ConfigError("it is a whole number", key=bad[0], value=numbers[bad[0]])
    count, rank = (int(numbers[name]) if name in numbers else None for name in (_COUNT, _RANK))
    on_signal = signal.getsignal(signal.SIGTERM)
    try:
        if not jax.distributed.is_initialized():
            jax.distributed.initialize(num_processes=count, process_id=rank)
    except ValueError as error:
        text = f"nothing says which processes there are ({first_line(error)[:200]})"
        mend = f"Outside Slurm and Open MPI, set {_COORDINATOR}=HOST:PORT, {_COUNT} and {_RANK}."
        raise ConfigError(text, key="train.distributed", hint=mend) from error
    except RuntimeError as error:
        proxies = [name for name in ("grpc_proxy", "https_proxy", "http_proxy") if os.environ.get(name)]
        mend = f"; {proxies[0]} is set: keep what is inside the cluster from it with no_grpc_proxy" if proxies else ""
        raise ResourceError(f"the processes have not found each other: {first_line(error)[:200]}{mend}.") from error
    finally:
        signal.signal(signal.SIGTERM, on_signal)  # JAX has replaced the handler


def is_asked(*, distributed: bool) -> bool:
    """Whether this process should train with others; see `join`."""
    return distributed or _COORDINATOR in os.environ


def _end_with_launcher() -> None:
    os.read(0, 1)  # returns when the other end is closed; `sys.stdin` would be locked when Python exits
    os.kill(os.getpid(), signal.SIGTERM)


def has_joined() -> bool:
    """Whether this process is one of several that train together."""
    jax: Any = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the only one, or the one of several that prints and writes the results."""
    return not has_joined() or sys.modules["jax"].process_index() == 0


@contextmanager
def hidden(config: DictConfig) -> Iterator[None]:
    """Discard the output and the files of a process other than the first."""
    with tempfile.TemporaryDirectory(prefix="datamix-") as directory:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        config.hydra.run.dir = directory
        yield


@contextmanager
def leaving() -> Iterator[None]:
    """Exit at once if the block raises: otherwise JAX would wait for the other processes, and these for this one."""
    try:
        yield
    except BaseException as ending:
        if not has_joined():
            raise
        if not isinstance(ending, SystemExit):
            traceback.print_exception(ending)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ending.code if isinstance(ending, SystemExit) and isinstance(ending.code, int) else 1)


def agreed(make: Callable[[], Any]) -> list[Any]:
    """Share the values of all processes with each of them; an error in one ends all, and the first reports it.

    Args:
      make: The function that makes the value of this process, in JSON's types.

    Returns:
      The value of each process.

    Raises:
      DatamixError: `make` has failed, here or in another process.
    """
    if not has_joined():
        return [make()]
    value, mistake = None, None
    try:
        value = make()
    except DatamixError as error:
        if error in _known_errors:
            raise
        mistake = error
    kind = mistake.kind if mistake else ""
    answers = [json.loads(text) for text in _gathered(json.dumps([value, kind, str(mistake)]))]
    failed = next((rank for rank, (_, kind, _) in enumerate(answers) if kind), None)
    if failed is None:
        return [value for value, _, _ in answers]
    if not is_first():
        raise SystemExit(2)
    _, kind, text = answers[failed]
    _known_errors.append(mistake or cast(DatamixError, errors.of_kind(kind, f"process {failed}: {text}")))
    raise _known_errors[-1]


def of_first(make: Callable[[], Any]) -> Any:
    """Share the value of the first process, in JSON's types, with all of them; see `agreed`."""
    return agreed(lambda: make() if is_first() else None)[0]


@contextmanager
def together() -> Iterator[None]:
    """Run the block in all processes; none continues after it until all have finished it, see `agreed`."""
    try:
        yield
    except DatamixError as error:
        agreed(partial(_raise, error))
    agreed(lambda: None)


def _raise(error: DatamixError) -> NoReturn:
    raise error


def check_alike(identity: Mapping[str, object]) -> None:
    """Check that all processes would train in the same way.

    Args:
      identity: The settings and digests of the records of this process, by key.

    Raises:
      ConfigError: The settings or records of a process differ from those of the first.
    """
    answers = agreed(lambda: identity)
    with together():
        for rank, other in enumerate(answers):
            if keys := ", ".join(changes(answers[0], other)):
                text = f"process {rank} differs from process 0 in {keys}"
                raise ConfigError(f"{text}; give all the same command and the same data.")


def _gathered(text: str) -> list[str]:
    """Share the texts of all processes with each of them."""
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    data = np.frombuffer(text.encode(), np.uint8)
    sizes = np.asarray(process_allgather(np.int32(len(data))))
    rows = np.asarray(process_allgather(np.pad(data, (0, int(sizes.max()) - len(data)))))
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


def lost(error: Exception) -> ResourceError:
    """The error to show for JAX's `error`, which it raises when another process has ended."""
    text = f"another of the processes that train together has ended, or cannot be reached ({first_line(error)[:200]})"
    return ResourceError(f"{text}; train.resume=true goes on from the last checkpoint.")
