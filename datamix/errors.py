"""The errors a user can meet, one class a cause, each a single line that says how to mend it."""

from __future__ import annotations

import difflib
import re
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 200  # characters of a value that are shown
_MOST_NAMES = 60  # of those that are known, in a hint
# What others call it, and what it is called here: the last part of a key or the whole of one, or a choice.
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
# Control characters but for tab and newline, those that turn the direction of writing, and bytes that are no text.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class DatamixError(Exception):
    """A user's mistake or a fault of their data; the command line prints it as one line and exits with 2.

    Args:
      text: What is allowed or what is wrong: a finished sentence where there is no key, otherwise what follows the key.
      key: The full key of the setting, such as "batch.size".
      value: What the setting was; None where it is missing.
      hint: How to mend it, as a finished sentence.

    Attributes:
      key: As given; None where the error is about no single setting.
      value: As given; None as well where no value was given.
      hint: As given; empty where there is none.

    >>> str(ConfigError("it is 1 or more", key="mix.window", value=0))
    'mix.window = 0; it is 1 or more.'
    >>> str(ConfigError("it is a whole number", key="batch.size", value=None))
    'batch.size is missing; it is a whole number.'
    >>> str(RegistryError("no job 'plam'", key="job", hint=hint("plam", ["plan", "train"])))
    "job: no job 'plam'. Did you mean 'plan'? Known: plan, train."
    """

    def __init__(self, text: str = "", *, key: str | None = None, value: object = ..., hint: str = "") -> None:
        # The sentence is the only argument, so that a copy made by pickle does not make it a second time.
        super().__init__(_sentence(text, key, value, hint))
        self.key, self.value, self.hint = key, None if value is ... else value, hint

    @property
    def kind(self) -> str:
        """The name of the class of this module that the error is of."""
        return next(each.__name__ for each in type(self).__mro__ if each.__module__ == __name__)

    def _render_traceback_(self) -> list[str]:
        """What IPython prints in place of a traceback: the user's own line, and the sentence."""
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
    """Raised when a library is missing or does not work, which says nothing of the data or the configuration."""


class ResourceError(DatamixError):
    """Raised when the machine has no more of what a job needs: memory, room on a disk, an output to write to."""


class PluginError(DatamixError):
    """Raised when a command line runs code of a user's own, and that raises an error."""


def of_kind(kind: str, text: str) -> DatamixError | None:
    """The error that has been printed or written as its kind and its sentence; None where this is no such kind.

    >>> of_kind("DataError", "source 'a' is empty.")
    DataError("source 'a' is empty.")
    >>> of_kind("ValueError", "not one of ours")
    """
    error = globals().get(kind)
    return error(text) if isinstance(error, type) and issubclass(error, DatamixError) else None


def of_plugin(error: BaseException) -> PluginError | None:
    """What code that is neither datamix's nor a library's has raised, by itself or in a library that it calls."""
    ours, libraries = str(Path(__file__).parent), (*map(sysconfig.get_path, ("stdlib", "purelib")), "<")
    stack = traceback.extract_tb(error.__traceback__)
    frames = [each for each in stack if each.filename.startswith(ours) or not each.filename.startswith(libraries)]
    if isinstance(error, DatamixError) or not frames or (last := frames[-1]).filename.startswith(ours):
        return None
    text = f"{last.filename}, line {last.lineno}, in {last.name}, raises {type(error).__name__}: {first_line(error)}"
    return PluginError(text, hint="HYDRA_FULL_ERROR=1 shows the traceback.")


def refuse_keywords(keywords: Mapping[str, object]) -> None:
    """Refuse overrides that are given as keywords of Python, as in load(source="mnist")."""
    for key, value in keywords.items():
        raise ConfigError("overrides are text", key=key, value=value, hint=f'Write "{key}={value}", in quotes.')


def of_source(name: str, text: str) -> str:
    """A sentence on a source of the mix, which names it first."""
    return f"source {name!r}: {text}"


def unknown_source(name: str, known: Iterable[str], key: str) -> ConfigError:
    """The error for a setting of a source that is not in the mix."""
    return ConfigError(f"there is no source {name!r} in this mix", key=key, hint=hint(name, known))


def check_choice(value: object, options: Sequence[str], key: str) -> None:
    """Refuse a value that is none of those that there are."""
    if value not in options:
        raise ConfigError(key=key, value=value, hint=hint(str(value), options))


def check_sources(names: Iterable[str], known: Iterable[str], key: str) -> None:
    """Refuse to set anything for a source that is not in the mix; each has its setting below `key`."""
    known = list(known)
    for name in names:
        if name not in known:
            raise unknown_source(name, known, f"{key}.{name}")


def not_installed(what: str, library: str, extra: str) -> InstallationError:
    """The error for what needs a library that cannot be imported."""
    return InstallationError(f"{what} needs {library}: {install_hint(extra)}.")


def counted(number: int, noun: str) -> str:
    """A number of things, in the plural but for one.

    >>> counted(1, "sample"), counted(2000, "batch")
    ('1 sample', '2,000 batches')
    """
    return f"{number:,} {noun}" + ("es" if noun.endswith("ch") else "s") * (number != 1)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without the full stop; its class where the message is empty.

    >>> first_line(ValueError("no such axis.")), first_line(ValueError())
    ('no such axis', 'ValueError')
    """
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _sentence(text: str, key: str | None, value: object, hint: str) -> str:
    """The line that is printed: `key = value; text. hint`, without the parts that are not given."""
    if key is not None:
        subject = key if value is ... else f"{key} is missing" if value is None else f"{key} = {_shown(value)}"
        text = f"{subject}{': ' if value is ... else '; '}{text}" if text else subject
        text = text if text.endswith((".", "?", "!")) else f"{text}."
    elif hint and not text.endswith((".", "?", "!")):
        text += "."
    return f"{text} {hint}" if hint else text


def _shown(value: object) -> str:
    """A value as Python writes it, on one line and not longer than a line can be."""
    text = " ".join(repr(value).splitlines())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def printable(text: str) -> str:
    r"""Show what would move a terminal's cursor, colour it or turn its lines around, as Python writes it.

    Names of classes, files and datasets may come from somebody else, and may be no text in any encoding.

    >>> print(printable(f"a{chr(27)}[31mred{chr(7)}"))
    a\x1b[31mred\x07
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def expanded(path: str | Path) -> Path:
    """A path whose `~` stands for the home of a user.

    Raises:
      ConfigError: There is no such home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"{path}: there is no such home; write the whole path.") from None


@contextmanager
def read_error(place: str) -> Iterator[None]:
    """Say of what cannot be read where it lies."""
    try:
        yield
    except (DataError, OSError) as error:
        raise unreadable(place, error) from error


def unreadable(place: str, error: DataError | OSError) -> DataError:
    """The error for what cannot be read, with the reason of another."""
    what = f": {error}" if isinstance(error, DataError) else f" cannot be read: {error.strerror or error}"
    return DataError(f"{place}{what}")


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names that are most like a name that is not known; none where none is like it.

    >>> nearest("crop", ["center_crop", "random_crop", "rotate"])
    ['center_crop', 'random_crop']
    """
    names = sorted(known)
    same = [each for each in names if each == WORDS_OF_OTHERS.get(name) or each.lower() == name.lower()]
    # The nearest by its letters, or those of which it is a word: crop of center_crop and random_crop.
    words = [each for each in names if name in each.split("_")][:3]
    return same or difflib.get_close_matches(name, names, n=1, cutoff=0.6 if not words else 0.8) or words


def hint(name: str, known: Iterable[str]) -> str:
    """Say which known name is nearest, and which there are.

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


def install_hint(extra: str) -> str:
    """Say how to install an extra, in a checkout or where datamix was installed from the index.

    >>> install_hint("prepare").startswith("pip install ")
    True
    """
    in_checkout = Path(__file__).resolve().parents[1].joinpath("pyproject.toml").is_file()
    return f"pip install -e '.[{extra}]'" if in_checkout else f"pip install 'datamix-jax[{extra}]'"
