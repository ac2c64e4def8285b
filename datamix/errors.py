"""The errors a user can meet: one class per cause, each a single line that says how to fix it."""

from __future__ import annotations

import difflib
import importlib.util
import re
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 200  # characters shown of a value
_MOST_NAMES = 60  # known names listed in a hint
# Names in other libraries and their names here: a whole key, the last part of one, or a choice.
_TERMS = """
    alternate=round_robin interleave=round_robin sequential=concat chain=concat uniform=random weighted=random
    longest=all_exhausted oversample=all_exhausted shortest=first_exhausted infinite=forever evaluate=train eval=train
    lr=learning_rate wd=weight_decay bs=batch.size batchsize=batch.size drop_last=remainder
    iterations=steps num_steps=steps max_steps=steps
    epochs=train.steps,stop.epochs.NAME stop.steps=stop.batches save_every=checkpoint_every log_interval=log_every
    device=devices gpus=devices workers=threads num_workers=threads buffer_size=shuffle shuffle_buffer=shuffle
    weight=weights proportion=share transform=operators transforms=operators augment=operators filter=where
    num_records=limit max_records=limit num_samples=limit max_samples=limit subset=limit root=path file=path
    out=hydra.run.dir output=hydra.run.dir output_dir=hydra.run.dir save_dir=hydra.run.dir log_dir=hydra.run.dir
"""
WORDS_OF_OTHERS: dict[str, str] = dict(re.findall(r"(\S+)=(\S+)", _TERMS))
# Control characters except tab and newline, those that change the writing direction, and bytes that are not text.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class DatamixError(Exception):
    """A user's mistake or a fault of their data; the command line prints it as one line and exits with 2.

    Args:
      text: What is allowed or what is wrong: a whole sentence if there is no key, otherwise the text after the key.
      key: The full key of the setting, such as "batch.size".
      value: The value of the setting; None if it is missing.
      hint: How to fix it, as a whole sentence.

    Attributes:
      key: The key; None if the error is not about a single setting.
      value: The value; also None if none was given.
      hint: The hint; empty if there is none.

    >>> str(ConfigError("it is 1 or more", key="mix.window", value=0))
    'mix.window = 0; it is 1 or more.'
    >>> str(ConfigError("it is a whole number", key="batch.size", value=None))
    'batch.size is missing; it is a whole number.'
    >>> str(RegistryError("no job 'plam'", key="job", hint=hint("plam", ["plan", "train"])))
    "job: no job 'plam'. Did you mean 'plan'? Known: plan, train."
    """

    def __init__(self, text: str = "", *, key: str | None = None, value: object = ..., hint: str = "") -> None:
        # The sentence is the only argument: unpickling passes it again, and must not build it a second time.
        super().__init__(_sentence(text, key, value, hint))
        self.key, self.value, self.hint = key, None if value is ... else value, hint

    @property
    def kind(self) -> str:
        """The name of the error's class, or of its nearest base class in this module."""
        return next(base.__name__ for base in type(self).__mro__ if base.__module__ == __name__)

    def _render_traceback_(self) -> list[str]:
        """What IPython prints instead of a traceback: the last frame in the user's own code, and the sentence."""
        ours = str(Path(__file__).parent)
        frames = [frame for frame in traceback.extract_tb(self.__traceback__) if "IPython" not in frame.filename]
        users = [frame for frame in frames if not frame.filename.startswith(ours)]
        return [*traceback.format_list(users[-1:]), f"{type(self).__name__}: {self}"]


class ConfigError(DatamixError):
    """Raised when a setting has a value that is not allowed."""


class RegistryError(DatamixError):
    """Raised when a name is not in the registry."""


class SpecError(DatamixError):
    """Raised when the shapes or dtypes of records do not fit together."""


class DataError(DatamixError):
    """Raised when data is missing, empty or damaged."""


class StateError(DatamixError):
    """Raised when a state does not belong to this pipeline."""


class InstallationError(DatamixError):
    """Raised when a library is missing or does not work; data and configuration may be right."""


class ResourceError(DatamixError):
    """Raised when the machine runs out of something a job needs: memory, disk space, an output to write to."""


class PluginError(DatamixError):
    """Raised when a user's own code, run by a command line, raises an error."""


def of_kind(kind: str, text: str) -> DatamixError | None:
    """Rebuild an error from its kind and its sentence, as printed or stored; None if there is no such kind.

    >>> of_kind("DataError", "source 'a' is empty.")
    DataError("source 'a' is empty.")
    >>> of_kind("ValueError", "not one of ours")
    """
    error = globals().get(kind)
    return error(text) if isinstance(error, type) and issubclass(error, DatamixError) else None


def of_plugin(error: BaseException) -> PluginError | None:
    """Wrap an error raised by a user's own code, or by a library that it calls; None for any other error."""
    ours, libraries = str(Path(__file__).parent), (*map(sysconfig.get_path, ("stdlib", "purelib")), "<")
    stack = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in stack if frame.filename.startswith(ours) or not frame.filename.startswith(libraries)]
    if isinstance(error, DatamixError) or not frames or (last := frames[-1]).filename.startswith(ours):
        return None
    text = f"{last.filename}, line {last.lineno}, in {last.name}, raises {type(error).__name__}: {first_line(error)}"
    return PluginError(text, hint="HYDRA_FULL_ERROR=1 shows the traceback.")


def refuse_keywords(keywords: Mapping[str, object]) -> None:
    """Refuse overrides passed as Python keywords, as in load(source="mnist")."""
    for key, value in keywords.items():
        raise ConfigError("overrides are text", key=key, value=value, hint=f'Write "{key}={value}", in quotes.')


def of_source(name: str, text: str) -> str:
    """Put the name of a source in front of a sentence about it."""
    return f"source {name!r}: {text}"


def unknown_source(name: str, known: Iterable[str], key: str) -> ConfigError:
    """The error for a setting of a source that is not in the mix."""
    return ConfigError(f"there is no source {name!r} in this mix", key=key, hint=hint(name, known))


def check_choice(value: object, options: Sequence[str], key: str) -> None:
    """Refuse a value that is not one of the options."""
    if value not in options:
        raise ConfigError(key=key, value=value, hint=hint(str(value), options))


def check_sources(names: Iterable[str], known: Iterable[str], key: str) -> None:
    """Refuse settings of sources that are not in the mix; `key` is the group with one setting per source."""
    known = list(known)
    for name in names:
        if name not in known:
            raise unknown_source(name, known, f"{key}.{name}")


def not_installed(what: str, library: str, extra: str) -> InstallationError:
    """The error for a feature whose library cannot be imported."""
    return InstallationError(f"{what} needs {library}: {install_hint(extra)}.")


def counted(number: int, noun: str) -> str:
    """A count and its noun, in the plural unless the count is 1.

    >>> counted(1, "sample"), counted(2000, "batch")
    ('1 sample', '2,000 batches')
    """
    return f"{number:,} {noun}" + ("es" if noun.endswith("ch") else "s") * (number != 1)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without the full stop; the name of its class if the message is empty.

    >>> first_line(ValueError("no such axis.")), first_line(ValueError())
    ('no such axis', 'ValueError')
    """
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _sentence(text: str, key: str | None, value: object, hint: str) -> str:
    """The printed line: `key = value; text. hint`, without missing parts."""
    if key is not None:
        subject = key if value is ... else f"{key} is missing" if value is None else f"{key} = {_shown(value)}"
        text = f"{subject}{': ' if value is ... else '; '}{text}" if text else subject
        text = text if text.endswith((".", "?", "!")) else f"{text}."
    elif hint and not text.endswith((".", "?", "!")):
        text += "."
    return f"{text} {hint}" if hint else text


def _shown(value: object) -> str:
    """The repr of a value, on one line and cut to `_LONGEST` characters."""
    text = " ".join(repr(value).splitlines())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def printable(text: str) -> str:
    r"""Escape characters that would move a terminal's cursor, change its colours or reverse its lines.

    Names of classes, files and datasets may come from somebody else, and may not be text in any encoding.

    >>> print(printable(f"a{chr(27)}[31mred{chr(7)}"))
    a\x1b[31mred\x07
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def expanded(path: str | Path) -> Path:
    """A path with `~` replaced by the home directory of the user.

    Raises:
      ConfigError: There is no such home directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"{path}: there is no such home; write the whole path.") from None


@contextmanager
def read_error(place: str) -> Iterator[None]:
    """Turn read errors inside the block into a `DataError` that names the place."""
    try:
        yield
    except (DataError, OSError) as error:
        raise unreadable(place, error) from error


def unreadable(place: str, error: DataError | OSError) -> DataError:
    """The error for a place that cannot be read, with another error as the reason."""
    reason = f": {error}" if isinstance(error, DataError) else f" cannot be read: {error.strerror or error}"
    return DataError(f"{place}{reason}")


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names most similar to an unknown one; empty if none is similar.

    >>> nearest("crop", ["center_crop", "random_crop", "rotate"])
    ['center_crop', 'random_crop']
    """
    names = sorted(known)
    same = [each for each in names if each == WORDS_OF_OTHERS.get(name) or each.lower() == name.lower()]
    # The nearest by spelling, or those that contain the name as a word, as center_crop and random_crop do crop.
    words = [each for each in names if name in each.split("_")][:3]
    return same or difflib.get_close_matches(name, names, n=1, cutoff=0.6 if not words else 0.8) or words


def hint(name: str, known: Iterable[str]) -> str:
    """Say which known names are nearest, and list them all.

    >>> hint("rotat", ["crop", "rotate"])
    "Did you mean 'rotate'? Known: crop, rotate."
    >>> hint("x", [])
    'There are none.'
    """
    names = sorted(known)
    if not names:
        return "There are none."
    near = nearest(name, names)
    listed = ", ".join(names[:_MOST_NAMES]) + (f", … ({len(names):,} in all)" if len(names) > _MOST_NAMES else "")
    return (f"Did you mean {' or '.join(map(repr, near))}? " if near else "") + f"Known: {listed}."


def prepare_hint() -> str:
    """What has a dataset downloaded and prepared: a network, and the extra where it is not installed."""
    installing = importlib.util.find_spec("tensorflow") is None
    return f"{install_hint('prepare')} and " * installing + "run once with a network"


def install_hint(extra: str) -> str:
    """The command that installs an extra, in a checkout or for a datamix from the package index.

    >>> install_hint("prepare").startswith("pip install ")
    True
    """
    in_checkout = Path(__file__).resolve().parents[1].joinpath("pyproject.toml").is_file()
    return f"pip install -e '.[{extra}]'" if in_checkout else f"pip install 'datamix-jax[{extra}]'"
