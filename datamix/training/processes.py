"""Training on several processes: how they find each other, agree, and end together.

Each runs the same program on the same configuration. What one of them decides by itself, as whether a signal has come
or what lies on its disk, the others are told. Importing this imports no JAX.
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
from typing import Any

from datamix import errors
from datamix.errors import ConfigError, DatamixError, ResourceError
from datamix.fingerprint import differing

LAUNCHED = "DATAMIX_LAUNCHED"
"""Set for a process that a launcher has started, and that ends when its standard input does."""
_COORDINATOR = "JAX_COORDINATOR_ADDRESS"
_NUMBERS = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

_told: list[DatamixError] = []  # what every process knows already


def are_asked(*, distributed: bool) -> bool:
    """Whether other processes are to train with this one."""
    return distributed or _COORDINATOR in os.environ


def join() -> None:
    """Join the other processes, which the environment names, as `jax.distributed.initialize` finds them.

    Raises:
      ConfigError: The environment does not name them.
      ResourceError: They have not come.
    """
    import jax

    if jax.distributed.is_initialized():
        return
    count, rank = (_number(name) for name in _NUMBERS)
    on_signal = signal.getsignal(signal.SIGTERM)
    if os.environ.get(LAUNCHED):
        threading.Thread(target=_end_with_launcher, daemon=True).start()
    try:
        jax.distributed.initialize(num_processes=count, process_id=rank)
    except ValueError as error:
        text = f"nothing says which processes there are ({str(error).rstrip('.')})"
        mend = f"Outside Slurm and Open MPI, set {_COORDINATOR}=HOST:PORT, {' and '.join(_NUMBERS)}."
        raise ConfigError(text, key="train.distributed", hint=mend) from error
    except RuntimeError as error:
        raise ResourceError(f"the processes have not found each other: {_first_line(error)}.") from error
    finally:
        signal.signal(signal.SIGTERM, on_signal)  # JAX takes it for itself


def _number(name: str) -> int | None:
    value = os.environ.get(name)
    if value is not None and not value.isdecimal():
        raise ConfigError("it is a whole number", key=name, value=value)
    return None if value is None else int(value)


def _end_with_launcher() -> None:
    sys.stdin.buffer.read()  # until its other end is closed
    os.kill(os.getpid(), signal.SIGTERM)


def has_joined() -> bool:
    """Whether this process is one of several."""
    jax: Any = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def rank() -> int:
    """The number of this process."""
    import jax

    return jax.process_index()


@contextmanager
def apart() -> Iterator[list[str]]:
    """Keep what a process other than the first prints and writes out of sight; yields the overrides for that."""
    with tempfile.TemporaryDirectory(prefix="datamix-") as directory:
        sys.stdout.flush()
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)
        yield [f"hydra.run.dir='{directory}'"]


@contextmanager
def leaving() -> Iterator[None]:
    """End a process that ends badly at once: otherwise JAX would wait for the others, and they wait for this one."""
    try:
        yield
    except BaseException as ending:
        if not has_joined():
            raise
        code = ending.code if isinstance(ending, SystemExit) else 1
        if not isinstance(ending, SystemExit):
            traceback.print_exception(ending)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def agreed(make: Callable[[], Any]) -> list[Any]:
    """What each process makes, in JSON's types, in all of them; a mistake in one ends all, and the first tells it.

    Raises:
      DatamixError: It could not be made, here or elsewhere.
    """
    if not has_joined():
        return [make()]
    value, mistake = None, None
    try:
        value = make()
    except DatamixError as error:
        if error in _told:
            raise
        mistake = error
    said = None if mistake is None else [_kind(mistake).__name__, str(mistake)]
    answers = [json.loads(text) for text in _gathered(json.dumps([value, said]))]
    failed = [(number, said) for number, (_, said) in enumerate(answers) if said is not None]
    if not failed:
        return [value for value, _ in answers]
    if rank():
        raise SystemExit(2)
    number, (kind, text) = failed[0]
    _told.append(mistake or getattr(errors, kind)(f"process {number}: {text}"))
    raise _told[-1]


def _kind(error: DatamixError) -> type:
    return next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)


def of_first(make: Callable[[], Any]) -> Any:
    """What the first process makes, in JSON's types, in all of them; see `agreed`."""
    return agreed(lambda: make() if not has_joined() or not rank() else None)[0]


@contextmanager
def together() -> Iterator[None]:
    """Do something in all processes, none of which goes on unless all have done it; see `agreed`."""
    try:
        yield
    except DatamixError as error:
        if has_joined() and error not in _told:
            agreed(partial(_raise, error))
        raise
    agreed(lambda: None)


def _raise(error: DatamixError) -> None:
    raise error


def check_alike(identity: Mapping[str, object]) -> None:
    """Refuse processes that would train differently; see `datamix.fingerprint.differing`.

    Raises:
      ConfigError: Another process has other settings or records.
    """
    answers = agreed(lambda: identity)

    def check() -> None:
        for number, other in enumerate(answers):
            if difference := differing(answers[0], other):
                mend = "give all the same command and the same data"
                raise ConfigError(f"process {number} trains {difference} in process 0; {mend}.")

    of_first(check)


def _gathered(text: str) -> list[str]:
    """The text of each process, in all of them."""
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    data = np.frombuffer(text.encode(), np.uint8)
    sizes = np.asarray(process_allgather(np.int32(len(data))))
    rows = np.asarray(process_allgather(np.pad(data, (0, int(sizes.max()) - len(data)))))
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


def lost(error: RuntimeError) -> ResourceError:
    """The error that stands for one of JAX's, where another process has ended."""
    import jax

    text = f"process {rank()} of {jax.process_count()}: another one has ended, or cannot be reached"
    return ResourceError(f"{text} ({_first_line(error)}). train.resume=true goes on from the last checkpoint.")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")[:200]
