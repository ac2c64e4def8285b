"""The registry of components: a config can build these by name, and nothing else.

A package declares its components when it is imported (`builtin`), and the module of each is imported on first use, so
that composing a config and printing help stay fast.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

from datamix.errors import ConfigError, RegistryError, hint

ENTRY_POINTS = "datamix.plugins"
"""The entry point group; each entry point names a module that registers components when it is imported."""


_KINDS = ("source", "operator", "weighting", "order", "stop", "model", "optimizer", "schedule", "policy", "job")
_Import = Callable[[], types.ModuleType]
_BUILTIN: dict[str, dict[str, tuple[_Import, str]]] = {kind: {} for kind in _KINDS}
"""By kind and name, for each built-in component: the function that imports its module, and its name there."""
_REGISTERED: dict[str, dict[str, Callable[..., Any]]] = {kind: {} for kind in _KINDS}
"""All other components, by kind and name."""
_RESERVED: dict[str, set[str]] = {
    "order": {"unit", "loss_weight", "simulate_budget"},
    "stop": {"rule", "samples", "batches", "tokens", "epochs"},
    "weighting": {"rule"},
    "policy": {"rule", "every", "floor", "warmup", "max_epochs", "export"},
}
"""By kind, the keys that share a config group, or a call's keywords, with a component's settings; see `reserve`."""


def reserve(kind: str, names: Iterable[str]) -> None:
    """Reserve names that every component of a kind has already, so that no setting may use them."""
    _RESERVED[kind].update(names)


def register(kind: str, name: str, component: Callable[..., Any]) -> None:
    """Add a component.

    Args:
      kind: "source", "operator", "order" and so on.
      name: What a config calls it.
      component: The function or class that is called with the config's settings as keywords.

    Raises:
      RegistryError: Another component has the name, or a setting has a reserved name.
    """
    for setting in settings(component) if kind in _RESERVED else ():
        if setting in _RESERVED[kind]:
            text = f"{kind} {name!r} takes a setting {setting!r}, which every {kind} has already; rename it."
            raise RegistryError(text)
    if name in _BUILTIN[kind] and component.__module__ == _BUILTIN[kind][name][0]().__name__:
        return  # its package has declared it already
    present = lookup(kind, name) if _is_known(kind, name) else None
    path = _path(component)
    if present is not None and path != (first := _path(present)):
        raise RegistryError(f"{kind} {name!r} is registered twice: as {first} and as {path}; rename one.")
    _REGISTERED[kind][name] = component


def builtin(kind: str, *names: str, **attributes: str) -> Callable[[_Import], _Import]:
    """Declare built-in components, in the `__init__.py` of their package, which imports nothing heavy.

    It decorates the function that imports and returns their module; this is called when one of them is first used.

    Args:
      names: Components that have the same name in the module.
      attributes: Other components: the name of each in the module, by its registered name.

    >>> @builtin("policy", root_for_doctest="sqrt")
    ... def _math():
    ...     import math
    ...     return math
    >>> lookup("policy", "root_for_doctest")(9.0)
    3.0
    """
    of_module = dict(zip(names, names, strict=True)) | attributes

    def declare(import_module: _Import) -> _Import:
        _BUILTIN[kind] |= {name: (import_module, attribute) for name, attribute in of_module.items()}
        return import_module

    return declare


@contextmanager
def registered() -> Iterator[None]:
    """Undo, when the block ends, all registrations made inside it; for tests that register their own components.

    Entry points are loaded before the block begins, so that their components stay.

    >>> with registered():
    ...     register("operator", "same_for_doctest", lambda record: record)
    >>> "same_for_doctest" in names("operator")
    False
    """
    _load_entry_points()
    before = {kind: dict(components) for kind, components in _REGISTERED.items()}
    try:
        yield
    finally:
        _REGISTERED.update(before)


def name_of(component: Callable[..., Any]) -> str:
    """The name of a function or class in snake_case.

    >>> name_of(type("OwnRecords", (), {}))
    'own_records'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", component.__name__).lower()


def names(kind: str) -> list[str]:
    """The names of all components of a kind, sorted."""
    return sorted({*_BUILTIN[kind], *_REGISTERED[kind]})


def _is_known(kind: str, name: str) -> bool:
    return name in _BUILTIN[kind] or name in _REGISTERED[kind]


def require(kind: str, name: str, where: str = "") -> None:
    """Check that a name is registered, without importing its component.

    Raises:
      RegistryError: There is no such name; the key of the error is `where`.
    """
    if not _is_known(kind, name):
        near = hint(name, names(kind))
        load_yours = "" if near.startswith("Did") else " One of your own needs its module: plugins=[MODULE]."
        raise RegistryError(f"no {kind} {name!r}", key=where or None, hint=near + load_yours)


def lookup(kind: str, name: str) -> Any:
    """The component with a name.

    Raises:
      RegistryError: Nothing of that kind has that name.

    >>> register("job", "plan_for_doctest", len)
    >>> lookup("job", "plam_for_doctest")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    datamix.errors.RegistryError: no job 'plam_for_doctest'. Did you mean 'plan_for_doctest'? Known: ...
    """
    require(kind, name)
    if name not in _BUILTIN[kind]:
        return _REGISTERED[kind][name]
    import_module, attribute = _BUILTIN[kind][name]
    return getattr(import_module(), attribute)


def settings(component: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword settings that a component takes, by name."""
    parameters = inspect.signature(_function(component)).parameters.values()
    return {parameter.name: parameter for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY}


def check_settings(
    where: str, component: Callable[..., Any], values: Mapping[str, Any], beside: Collection[str] = ()
) -> None:
    """Refuse unknown settings, settings of a wrong type, and missing settings that have no default.

    The hint about an unknown setting also lists the keys `beside` the settings, which are for others.

    Raises:
      ConfigError: A setting is refused; the error names its full key.
    """
    takes = settings(component)
    for name in values:
        if name not in takes:
            raise ConfigError("there is no such setting", key=f"{where}.{name}", hint=hint(name, {*takes, *beside}))
    for name, parameter in takes.items():
        if parameter.default is inspect.Parameter.empty and name not in values:
            mend = f"Write {where}.{name}=…." if "[" not in where else example(where.rpartition(".")[2], component)
            raise ConfigError("it has no default", key=f"{where}.{name}", value=None, hint=mend)
    hints = _annotations(_function(component)) if values else {}
    if hints is None:
        return
    for name, value in values.items():
        _check_value(f"{where}.{name}", value, hints.get(name))


def _check_value(key: str, value: Any, annotation: Any) -> None:
    """Refuse a value, or an item of it, of a type that its annotation does not allow, or a number over 64 bits."""
    if (kinds := _kinds(annotation)) and not any(is_kind(value, kind) for kind in kinds):
        text = f"it is {' or '.join(KINDS[kind] for kind in kinds)}"
        mend = f"Write {key}=[{value}]." if kinds == [list] and "[" not in key else ""
        raise ConfigError(text, key=key, value=value, hint=mend)
    inside = _kinds_inside(annotation)
    is_group, is_list = isinstance(value, dict), isinstance(value, list | tuple)
    for entry, item in value.items() if is_group else enumerate(value if is_list else ()):
        if inside and type(item) in KINDS and not any(is_kind(item, kind) for kind in inside):
            text = f"it is {' or '.join(dict.fromkeys(KINDS[kind] for kind in inside))}"
            raise ConfigError(text, key=f"{key}.{entry}" if is_group else f"{key}[{entry}]", value=item)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ConfigError("it is a number of at most 64 bits", key=key, value=value)
    if any(isinstance(number, float) and number != number for number in (value if is_list else [value])):
        raise ConfigError("it is a number, and nan is none", key=key, value=value)


def example(name: str, component: Callable[..., Any], value: object = "…") -> str:
    """Say how to write a component with its required settings, or else its first, set to `value` or to its items.

    >>> example("power", lambda record, *, by, leaf="image": record, 2)
    'Write {power: {by: 2}}; power takes by, leaf.'
    """
    takes = settings(component)
    needed = [setting.name for setting in takes.values() if setting.default is setting.empty] or [*takes][:1]
    values = value if isinstance(value, list) and len(value) == len(needed) else [value] * len(needed)
    written = ", ".join(f"{setting}: {one}" for setting, one in zip(needed, values, strict=True))
    return f"Write {{{name}: {{{written}}}}}; {name} takes {', '.join(takes)}." if takes else f"Write {name}."


def _function(component: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the signature of a component; for a class, `__init__`, as a metaclass may hide it."""
    return component.__init__ if isinstance(component, type) else component  # type: ignore[misc]


def _annotations(function: Callable[..., Any]) -> dict[str, Any] | None:
    """The types of a function's parameters; None if only a type checker can resolve them."""
    # Jobs of a sweep ask for the same functions, and resolving their types takes as long as all other checks.
    resolve = _resolved if isinstance(function, types.FunctionType) else _resolved.__wrapped__
    return resolve(function)


@lru_cache
def _resolved(function: Callable[..., Any]) -> dict[str, Any] | None:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):
        return None


KINDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "a group of keys",
    type(None): "null",
}
"""The types of values in a config, in a user's words."""


def is_kind(value: object, kind: type) -> bool:
    """Whether a config's value is of a type; a whole number counts as a number, true and false do not."""
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else (list, tuple) if kind is list else kind)


def _kinds(annotation: Any) -> list[type]:
    """The types that a config's value may have under an annotation; empty if the annotation allows others."""
    if annotation in KINDS:
        return [annotation]
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        parts = [_kinds(part) for part in typing.get_args(annotation)]
        return [kind for part in parts for kind in part] if all(parts) else []
    if origin in (list, tuple, Sequence):
        return [list]
    return [dict] if origin in (dict, Mapping) else []


def _kinds_inside(annotation: Any) -> list[type]:
    """The types that the values of a list or a group of keys may have; empty if the annotation does not say."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return [kind for part in inside for kind in _kinds_inside(part)]
    if not inside or (origin is tuple and inside[-1] is not ...):
        return []
    return _kinds(inside[0] if origin is tuple else inside[-1])


def load_plugins(modules: Iterable[str]) -> None:
    """Import the modules that register a user's own components: those named here and those of entry points.

    Raises:
      ConfigError: A module named here cannot be found.
    """
    _load_entry_points()
    for module in modules:
        if not isinstance(module, str) or not module or module.startswith(".") or module.endswith(".py"):
            mend = "It is written as Python imports it: plugins=[folder.module]."
            raise ConfigError(f"{module!r} is not the name of a module", key="plugins", hint=mend)
        try:
            importlib.import_module(module)
        except SyntaxError as error:
            raise ConfigError(f"module {module!r} is no Python: {error}", key="plugins") from error
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # the module exists, and lacks another one
            text = f"there is no module {module!r}; install it, or run from the folder that holds it"
            raise ConfigError(text, key="plugins") from None


@cache
def _load_entry_points() -> None:
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        entry.load()


def _path(component: Callable[..., Any]) -> str:
    return f"{component.__module__}:{getattr(component, '__qualname__', type(component).__name__)}"
