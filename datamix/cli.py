"""The command line, and the only use of `@hydra.main`."""

from __future__ import annotations

import argparse
import atexit
import difflib
import errno
import gc
import os
import re
import signal
import string
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stdout, suppress
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobRuntime, configure_log, setup_globals
from hydra.errors import HydraException
from hydra.plugins.completion_plugin import CompletionPlugin
from hydra.types import RunMode
from hydra.version import setbase
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

# These packages register the names of their components.
from datamix import __version__, jobs, mixing, operators, pipeline, registry, sources, training  # noqa: F401
from datamix.config import compose
from datamix.config.check import component_kind
from datamix.config.directories import directory_in_use, not_written
from datamix.config.explain import config_error
from datamix.config.files import conf_dir
from datamix.config.help import commented
from datamix.config.hydra_node import check_hydra_node
from datamix.config.parse import parse, without_hydra
from datamix.config.paths import with_absolute_paths
from datamix.config.renamed import TARGET
from datamix.errors import ConfigError, DatamixError, InstallationError, ResourceError, expanded, of_plugin, printable
from datamix.interruption import ended_by
from datamix.sweeps.preparing import check_jobs, settle
from datamix.sweeps.watching import JobsFailed, run_recorded, run_watched
from datamix.training import processes

if TYPE_CHECKING:
    from datamix.sweeps.launching import SharedData

# The flags by which Hydra prints a configuration and does not run it.
_SHOWN_BY_HYDRA = ("cfg", "info", "shell_completion")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake ends it with one line on standard error and exit code 2.

    Args:
      argv: The arguments; None for those of the process.
    """
    full_error = os.environ.get("HYDRA_FULL_ERROR", "") not in ("", "0")
    alone = argv is None  # the process runs nothing else, and needs no docstrings of Matplotlib
    if alone:
        gc.set_threshold(20_000)  # imports and traces create objects by the hundred thousand, most of which stay
        atexit.register(gc.freeze)  # otherwise Python collects several times at exit, which takes 0.5 s or more
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115  # None after a shell's `>&-`
    with processes.leaving(), _any_text(sys.stdout):
        try:
            with ended_by(signal.SIGINT, signal.SIGTERM):
                _run(list(sys.argv[1:] if argv is None else argv), alone=alone)
            with _printing():  # flush the buffer
                pass
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)
        except SystemExit as ending:
            if ending.code == 128 + signal.SIGTERM:
                print("terminated", file=sys.stderr)
            raise
        except _JobError as carrier:
            _end(carrier.error, full_error)
        except Exception as error:  # all but signals; `_end` raises it again unless it is a user's mistake
            _end(error, full_error)


def _end(error: Exception, full_error: bool) -> NoReturn:
    """End with one line for a user's mistake or a lack of resources, and with a traceback for anything else."""
    if isinstance(error, BrokenPipeError):  # the reader of the output has closed it
        sys.exit(1)
    if isinstance(error, HydraException | OmegaConfBaseException | YAMLError):
        shown: Exception = config_error(error)
    else:
        shown = _lack(error) or of_plugin(error) or error
    if full_error or not isinstance(shown, DatamixError):
        raise error
    with suppress(OSError, ResourceError), _printing():  # flush the buffer; drop it if the output is full
        pass
    print(printable(f"{shown.kind}: {shown}"), file=sys.stderr)
    sys.exit(2)


def _lack(error: Exception) -> DatamixError | None:
    """The error that names the resource which the machine lacks; None if the error has another cause."""
    jax: Any = sys.modules.get("jax")
    of_jax = jax is not None and isinstance(error, jax.errors.JaxRuntimeError)
    exhausted = of_jax and "RESOURCE_EXHAUSTED" in str(error)
    if isinstance(error, MemoryError) or exhausted:
        detail = " ".join(str(error).split()).removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")
        more = f" ({detail[:200]})" if detail else ""
        return ResourceError(
            f"there is not enough memory{more}; a smaller batch.size or train.steps, source.NAME.limit and fewer "
            "sources take less."
        )
    # In a call, JAX raises the same error, with its code and text, as a ValueError.
    if processes.has_joined() and (of_jax or (isinstance(error, ValueError) and re.match("[A-Z_]+: ", str(error)))):
        return processes.lost(error)
    if isinstance(error, RuntimeError) and str(error).startswith("Unable to initialize backend"):
        return InstallationError(f"JAX has no device: {' '.join(str(error).split())}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        file = error.filename or "a file"
        return ResourceError(f"{file} cannot be written: {error.strerror}; make room on its disk.")
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        file = error.filename or "a file"
        return ResourceError(f"{file} cannot be written: {error.strerror}; ulimit -f unlimited lets files be larger.")
    return None


@contextmanager
def _any_text(stream: TextIO) -> Iterator[None]:
    """Write characters that the encoding of a stream lacks, such as a dash in ASCII, as question marks."""
    if not isinstance(stream, TextIOWrapper) or stream.errors != "strict":
        yield
        return
    stream.reconfigure(errors="replace")
    try:
        yield
    finally:
        stream.reconfigure(errors="strict")


@contextmanager
def _printing() -> Iterator[None]:
    """Print inside the block, and do nothing else; raises `ResourceError` if the output cannot be written."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):  # drop the buffer, which Python would otherwise try to write again at exit
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, sys.stdout.fileno())
            os.close(devnull)
        if error.filename is not None or isinstance(error, BrokenPipeError):
            raise
        raise ResourceError(f"the standard output cannot be written: {error.strerror}.") from error


class _JobError(BaseException):
    """Carries the error that has ended a job past Hydra, which would report it in its own way."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def _run(arguments: list[str], *, alone: bool = False) -> None:
    """Follow a user's arguments; `alone` is whether the process does nothing else."""
    if "--version" in arguments:
        with _printing():
            print(f"datamix {__version__}")
        return
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the current directory has been deleted; change into another one.") from None
    args, flags = _read(arguments)
    if processes.LAUNCHED not in os.environ:  # a launcher adds overrides to those of the user
        notes = compose.check_repeated(args.overrides)
        if not any(getattr(args, name) for name in _SHOWN_BY_HYDRA):  # which other programs read
            with _printing():
                for note in notes:
                    print(printable(f"Note: {note}"))
    _follow(args, flags, alone=alone)


def _follow(args: argparse.Namespace, flags: list[str], *, alone: bool = False) -> None:
    """Print what is asked for, or run a job, or a sweep and its rounds."""
    overrides = compose.prepared([*args.overrides, *(["hydra.mode=MULTIRUN"] if args.multirun else [])])
    loader = compose.config_loader(args.config_dir, config_path=args.config_path)
    with _importable_directory(), ExitStack() as stack:
        if any(getattr(args, name) for name in _SHOWN_BY_HYDRA):
            with compose.named_faults(loader):
                _show(args, flags, overrides)
            return
        setup_globals()  # resolvers and the name of the job, as `hydra.main` sets them
        setbase(compose.VERSION_BASE)
        JobRuntime.instance().set("name", __name__.rpartition(".")[2])
        with compose.named_faults(loader):
            if args.help:
                with _printing():
                    _print_help(loader, args, overrides)
                return
            if alone:
                from datamix.report import figures  # here, as it imports NumPy, which help does not need

                figures.documented = False
            config = _composed(loader, args, overrides)
            is_sweep = config.hydra.mode == RunMode.MULTIRUN
            if not args.hydra_help:
                with compose.hydra_config(config):
                    if is_sweep:
                        settle(config)
                        check_jobs(config, loader)
                    stack.enter_context(_directory(config, "hydra.sweep.dir" if is_sweep else "hydra.run.dir"))
        if args.hydra_help:
            _start_hydra([*flags, *overrides])
            return
        if not is_sweep:
            _import_job(config)
            if alone:  # spares imported objects, which stay, further collections during the job
                gc.freeze()
            _start(config, loader)
            return
        failed = None
        try:
            run_watched(config, loader, partial(_start, config, loader))
        except JobsFailed as error:  # further rounds use the results of the other jobs
            failed = error
    from datamix.sweeps.rounds import rounds  # here, as it imports rich

    for following in rounds(config, loader):
        try:
            _follow(*_read([*flags, *following]))
        except JobsFailed as error:
            failed = error
    if failed is not None:
        raise failed


def _show(args: argparse.Namespace, flags: list[str], overrides: list[str]) -> None:
    """Print what Hydra shows of a configuration, or the completions of a shell's line."""
    with _completion(args) as dir_flags, _printing():
        if args.shell_completion and (names := _components(os.environ.get("COMP_LINE", ""))):
            print("\n".join(names))
            return
        _start_hydra([*flags, *dir_flags, *(args.overrides if args.shell_completion else overrides)])


def _composed(loader: compose.Loader, args: argparse.Namespace, overrides: list[str]) -> DictConfig:
    """Compose the configuration of a run or a sweep, import its plugins, and check its `hydra` part."""
    # As for a sweep, so that it lacks swept values, whether a flag or the configuration asks for the sweep.
    config = loader.load_configuration(
        args.config_name or "config", overrides, RunMode.MULTIRUN, validate_sweep_overrides=False
    )
    compose.require_keys(config, args.config_dir)
    compose.load_plugins(config)
    if not args.hydra_help:
        is_sweep = config.hydra.mode == RunMode.MULTIRUN
        loader.check_mode(config, overrides, RunMode.MULTIRUN if is_sweep else RunMode.RUN)
    with compose.hydra_config(config):
        check_hydra_node(config)
    return config


def _directory(config: DictConfig, key: str) -> AbstractContextManager[None]:
    """Hold the directory that the run or the sweep writes to; if processes train together, only the first one does."""
    distributed = OmegaConf.select(config, "train.distributed") is True
    if "train" in config and processes.is_asked(distributed=distributed):
        if key == "hydra.sweep.dir":
            mend = "Start the sweep by itself; hydra/launcher=processes starts several for each of its jobs."
            raise ConfigError("several processes train one model, not a sweep", key="train.distributed", hint=mend)
        processes.join(distributed=distributed)
        if not processes.is_first():
            return processes.hidden(config)
        if processes.LAUNCHED in os.environ:  # the launcher holds the directory
            return nullcontext()
    return directory_in_use(config, key)


def _import_job(config: DictConfig) -> None:
    """Import what a job needs, before Hydra starts it.

    Inside Hydra's frames, CPython 3.11 would map and unmap a part of its stack at nearly every call of these imports,
    which takes 0.3 s.
    """
    name = OmegaConf.select(config, "job._target_")
    if name in registry.names("job"):
        registry.lookup("job", name)


@contextmanager
def _completion(args: argparse.Namespace) -> Iterator[list[str]]:
    """Prepare the line of a shell, which begins with the name of the program, for completion by Hydra.

    Yields:
      The flags for Hydra that the line contains.
    """
    line = os.environ.get("COMP_LINE")
    if not args.shell_completion:
        yield []
        return
    flags = []
    if line is not None:
        typed = CompletionPlugin.strip_python_or_app_name(line)
        names, shown = [], typed
        if (named := re.search(r"(?:^|\s)(?:--config-dir|-cd)[= ](\S+)\s", typed)) and expanded(named[1]).is_dir():
            flags = ["--config-dir", str(expanded(named[1]))]
            names = compose.choices(expanded(named[1])).get("dataset", [])
            shown = typed.replace(named[0], " ")  # Hydra completes only overrides
        os.environ["COMP_LINE"] = f"{line.removesuffix(typed)}{compose.search_path(names)} {shown.lstrip()}"
    try:
        yield flags
    except ValueError as error:  # an unknown shell
        raise ConfigError(f"--shell-completion: {' '.join(str(error).split())}.") from error
    finally:
        if line is not None:
            os.environ["COMP_LINE"] = line


def _components(line: str) -> list[str]:
    """The completions of the last word of a line if it names components, such as operators=[to_float,norm.

    Only modules that the line itself names in plugins= are imported.
    """
    word = re.search(r"(\S+)=((?:\[(?:\S+,)?)?)(\w*)$", line)
    kind = component_kind(word[1]) if word else ""
    if not word or not kind or bool(word[2]) != (kind == "operator"):
        return []
    named = re.search(r"\splugins=\[?([\w.,]+)\]?\s", line)
    with redirect_stdout(sys.stderr):  # what modules print is not a completion
        registry.load_plugins(named[1].split(",") if named else [])
    return [f"{word[1]}={word[2]}{name}" for name in registry.names(kind) if name.startswith(word[3])]


def _read(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse a command line as Hydra does, except that flags may be placed between overrides.

    Returns:
      The parsed arguments, and those of the arguments that are flags and their values.
    """

    def refuse(message: str) -> NoReturn:
        mend = "--hydra-help lists the flags"
        if any(part.count("{") != part.count("}") for part in arguments):
            mend = "the shell has cut an override at a blank: put quotes around all of it"
        if flag := re.match("unrecognized arguments: (--?[a-zA-Z_-]+)", message):
            near = difflib.get_close_matches(flag[1], parser._option_string_actions, n=1, cutoff=0.8)
            mend = f"did you mean {near[0]}" if near else f"a setting is written key=value, without dashes; {mend}"
        raise ConfigError(f"{message}; {mend}{'?' if mend.startswith('did') else '.'}")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    parser.add_argument("--verbose", "-v", action="store_true", help="Print all that the jobs of a sweep print")
    args = parser.parse_intermixed_args(arguments)
    if args.experimental_rerun:
        raise ConfigError("--experimental-rerun reads a pickle, which may run any code; repeat the command instead.")
    actions = [name for name in ("run", "multirun", *_SHOWN_BY_HYDRA) if getattr(args, name)]
    if len(actions) > 1:
        raise ConfigError(f"{' and '.join(f'--{name}'.replace('_', '-') for name in actions)} exclude each other.")
    if args.resolve and not (args.cfg or args.help):
        raise ConfigError("--resolve belongs to --cfg or --help; add one of them, or leave it out.")
    flags = list(arguments)
    for override in args.overrides:
        flags.remove(override)
    if args.verbose:  # Hydra has no such flag
        flags = [flag for flag in flags if flag not in ("-v", "--verbose")]
        args.overrides.append("sweep.verbose=true")
    return args, flags


def _print_help(loader: ConfigLoaderImpl, args: argparse.Namespace, overrides: list[str]) -> None:
    """Print what datamix is for, all choices, and the settings that result from a command line."""
    mode = RunMode.MULTIRUN if args.multirun else RunMode.RUN
    topics = [override for override in overrides if re.fullmatch(r"[\w.]+", override)]  # --help mix
    overrides = [override for override in overrides if override not in topics]
    config = loader.load_configuration(args.config_name or "config", overrides, mode)
    compose.load_plugins(config)
    user_dir = None if args.config_dir is None else expanded(args.config_dir)
    show = partial(commented, without_hydra(config), config.hydra.runtime.choices, resolve=args.resolve, own=user_dir)
    if topics:
        print("\n\n".join(map(show, topics)))
        return
    choices = compose.choices(args.config_dir)
    text = string.Template(config.hydra.help.template).substitute(
        APP_CONFIG_GROUPS="\n".join(f"{group}: {', '.join(options)}" for group, options in choices.items()),
        CONFIG=show(),
    )
    print(text)


@contextmanager
def _importable_directory() -> Iterator[None]:
    """Make modules in the current directory importable, as `python -m datamix` does."""
    directory = str(Path.cwd())
    if directory in sys.path:
        yield
        return
    sys.path.append(directory)
    try:
        yield
    finally:
        if directory in sys.path:
            sys.path.remove(directory)


class _Composed(Hydra):
    """Hydra for a configuration that is already composed and checked; otherwise Hydra would compose it twice more."""

    def __init__(self, config: DictConfig, loader: compose.Loader) -> None:
        super().__init__(JobRuntime.instance().get("name"), loader)
        self._config = config

    def compose_config(self, *_: Any, **_options: Any) -> DictConfig:
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        return self._config


def _start(config: DictConfig, loader: compose.Loader) -> None:
    """Let Hydra run the job of a configuration, or the jobs of its sweep."""
    is_sweep = config.hydra.mode == RunMode.MULTIRUN
    hydra = _Composed(config, loader)
    GlobalHydra.instance().initialize(hydra)
    try:
        if is_sweep:
            from datamix.sweeps.launching import SharedData

            hydra.multirun(config.hydra.job.config_name, partial(run, shared=SharedData()), [])
        else:
            hydra.run(config.hydra.job.config_name, run, [])
    except OSError as error:
        if error.filename is None:
            raise
        key = "hydra.sweep.dir" if is_sweep else "hydra.run.dir"
        raise not_written(error, key) from error
    finally:
        GlobalHydra.instance().clear()


def _start_hydra(arguments: list[str]) -> None:
    """Let Hydra handle a command line that runs no job; Hydra reads it from `sys.argv`."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [argv[0], *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    try:
        hydra.main(version_base=compose.VERSION_BASE, config_path=str(conf_dir()), config_name="config")(run)()
    finally:
        sys.argv = argv
        os.environ.pop("HYDRA_FULL_ERROR")
        if full_error is not None:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def run(
    node: DictConfig,
    trained: Any = None,
    work: Callable[..., dict[str, Any]] | None = None,
    shared: SharedData | None = None,
) -> float | None:
    """Run the job that a composed configuration names, in Hydra's run directory.

    Args:
      node: The composed configuration, without Hydra's part.
      trained: What a launcher has already done for the job, see `datamix.jobs.train.run`; None for nothing.
      work: What a launcher does instead of running the job here, see `datamix.sweeps.processes.work_of`; None if the
        job runs here.
      shared: The data that the jobs of a sweep share; None outside a sweep.

    Returns:
      The metric by which a sweep compares its jobs; None outside a sweep, or if the job does not report it.
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        here = partial(_work, trained=trained, shared=shared)
        return run_recorded(node, here if work is None else partial(work, otherwise=here))
    try:
        _work(node)
    except Exception as error:  # all but signals
        raise _JobError(error) from error
    except (KeyboardInterrupt, SystemExit) as ending:
        if isinstance(ending, SystemExit) and ending.code == 2:  # a mistake in another process, which reports it
            raise
        directory = Path(HydraConfig.get().runtime.output_dir)
        more = f"with train.resume=true {compose.typed_text('hydra.run.dir', str(directory))} "
        if "train" in node and any(directory.glob("checkpoints/*")):
            print(f"The same command {more}goes on from the last checkpoint.", file=sys.stderr)
        elif "train" in node:
            print("There is no checkpoint yet, as tests take one; the same command begins again.", file=sys.stderr)
        elif node.job.get(TARGET) == "prepare":
            print("What is prepared is kept; the same command goes on.", file=sys.stderr)
        raise
    return None


def _work(node: DictConfig, trained: Any = None, shared: SharedData | None = None) -> dict[str, Any]:
    hydra_config: Any = HydraConfig.get()
    if (typed_in := Path(hydra_config.runtime.cwd)) != Path.cwd():
        compose.load_plugins(node)
        node = with_absolute_paths(node, typed_in)
    config = parse(node, hydra_config) if trained is None or isinstance(trained, DatamixError) else trained.config
    job = registry.lookup("job", config.job)
    registry.check_settings("job", job, config.job_settings)
    directory = Path(hydra_config.runtime.output_dir)
    try:
        if trained is None and shared is not None and config.job == "train":
            trained = shared.prepared(config, directory)
        report: dict[str, Any] = job(config, directory, *([] if trained is None else [trained]), **config.job_settings)
    except (MemoryError, OSError, RuntimeError) as error:
        if (lack := _lack(error)) is not None:
            raise lack from error
        if not isinstance(error, OSError) or not str(error.filename or "").startswith(str(directory)):
            raise
        key = "hydra.sweep.dir" if hydra_config.mode == RunMode.MULTIRUN else "hydra.run.dir"
        raise not_written(error, key) from error
    return report
