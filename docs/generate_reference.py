"""Writes the reference of all settings from the YAML files, the schema and the registry, when the site is built.

`python docs/generate_reference.py` prints it.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from datamix import jobs, operators, registry, sources, training  # noqa: F401  (their components are known by name)
from datamix.config.check import keys_of
from datamix.config.help import SettingLine, meanings_of, settings_of
from datamix.config.schema import Config, MixConfig, SourceConfig, SweepConfig, TrainConfig
from datamix.sources.images import ImageFormat

CONF = Path(__file__).resolve().parents[1] / "conf"
FIGURES = CONF.parent / ".github"
KINDS = {
    "mix": "order",
    "stop": "stop",
    "weighting": "weighting",
    "adapt": "policy",
    "job": "job",
    "model": "model",
    "optimizer": "optimizer",
    "experiment": "",
    "dataset": "source",
}
"""The kind of component that a choice of each group names, in the order in which the groups are shown."""


def types() -> dict[str, str]:
    """What the schema allows for each key."""
    allowed = {}
    for schema in (Config, MixConfig, SweepConfig, TrainConfig):
        hints = typing.get_type_hints(schema, include_extras=True)
        allowed |= {key.path: type_of(hints[name]) for name, key in keys_of(schema).items()}
    return allowed


def types_of(component: Any) -> dict[str, str]:
    """What a component allows for each of its settings."""
    hints = typing.get_type_hints(component.__init__ if isinstance(component, type) else component)
    return {name: type_of(hints.get(name)) for name in registry.settings(component)}


def type_of(annotation: Any) -> str:
    """A type in the words of error messages."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        bounds = [part.ge for part in arguments[1:] if getattr(part, "ge", None) is not None]
        above = [part.gt for part in arguments[1:] if getattr(part, "gt", None) is not None]
        bound = f", {bounds[0]} or more" if bounds else f", above {above[0]}" if above else ""
        return type_of(arguments[0]) + bound
    if origin is typing.Literal:
        return " or ".join(f"`{option}`" for option in arguments)
    if arguments and (origin is typing.Union or origin is type(int | None)):
        return " or ".join(filter(None, map(type_of, arguments)))
    kind = next((words for kind, words in registry.KINDS.items() if annotation is kind), "")
    if not kind and isinstance(origin, type):
        kind = (
            "a group of keys" if issubclass(origin, Mapping) else "a list" if issubclass(origin, (list, tuple)) else ""
        )
        kind = "a list" if not kind and origin.__name__ == "Sequence" else kind
    return kind


def cell(text: str) -> str:
    """A text in a cell: outside of code, what looks like a tag would be one."""
    parts = text.replace("|", "\\|").replace("\n", " ").split("`")
    return "`".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts))


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    """A Markdown table; nothing where it has no rows."""
    if rows:
        yield from ("", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}")
        yield from (f"| {' | '.join(map(cell, row))} |" for row in rows)
        yield ""


def components(kind: str) -> Iterator[str]:
    """Every component of a kind: what it does and its settings, from its signature and docstring."""
    for name in registry.names(kind):
        component = registry.lookup(kind, name)
        text = inspect.getdoc(component) or ""
        yield f"### `{name}` {{#{kind}-{name.replace('_', '-')}}}"
        yield from ("", text.split("\n\n")[0].replace("\n", " "))
        meanings = meanings_of_component(component)
        allowed, rows = types_of(component), []
        for setting, parameter in registry.settings(component).items():
            default = "needed" if parameter.default is inspect.Parameter.empty else f"`{yaml(parameter.default)}`"
            rows.append((f"`{setting}`", default, allowed[setting], meanings.get(setting, "")))
        yield from table(("setting", "default", "type", "meaning"), rows)
        yield ""


def meanings_of_component(component: Any) -> dict[str, str]:
    """The meanings of the settings of a component; those of images are described once for all sources."""
    images = meanings_of(ImageFormat.__doc__ or "") if "background" in registry.settings(component) else {}
    return images | meanings_of(inspect.getdoc(component) or "")


def yaml(value: object) -> str:
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def reference() -> str:
    """The page, in Markdown."""
    lines = [
        "# Configuration",
        "",
        "Every setting is a key of YAML and an override of the command line: `datamix batch.size=256`. The command "
        "`datamix --help` prints the values that a command line makes. This page is made from the shipped YAML files, "
        "and from the schema that checks them.",
        "",
        "## Settings of every run",
    ]
    allowed = types()
    head = ("key", "default", "type", "meaning")

    def rows(settings: list[SettingLine], kind: str = "") -> list[tuple[str, ...]]:
        target = next((each.default for each in settings if kind and each.key.endswith("_target_")), "")
        component = registry.lookup(kind, target) if target in registry.names(kind or "job") else None
        types = {} if component is None else types_of(component)
        meanings = meanings_of_component(component) if component is not None else {}
        result = []
        for each in settings:
            name = each.key.rpartition(".")[2]
            kinds = allowed.get(each.key) or types.get(name, "")
            if name != "_target_":
                result.append((f"`{each.key}`", f"`{each.default}`", kinds, each.meaning or meanings.get(name, "")))
        return result

    lines += table(head, rows(settings_of(CONF / "config.yaml")[1]))
    meanings = meanings_of(SourceConfig.__doc__ or "")
    hints = typing.get_type_hints(SourceConfig, include_extras=True)
    defaults = {each.name: each.default for each in fields(SourceConfig)}
    lines += ["## Settings of a source", "", "`NAME` is the name of a source in `source=`.", ""]
    keys = {name: key.path for name, key in keys_of(SourceConfig).items() if name not in ("name", "target", "settings")}
    lines += table(
        head,
        [
            (f"`source.NAME.{key}`", f"`{list(value) if isinstance(value := defaults[name], tuple) else yaml(value)}`",
             type_of(hints[name]), meanings.get(name, ""))
            for name, key in keys.items()
        ],
    )  # fmt: skip
    for group, kind in KINDS.items():
        lines += [f"## `{'source' if group == 'dataset' else group}=`", ""]
        for path in sorted((CONF / group).glob("*.yaml")):
            heading, settings = settings_of(path, "source.NAME" if group == "dataset" else group)
            lines += [f"### `{group if group != 'dataset' else 'source'}={path.stem}`", "", heading]
            lines += table(head, rows(settings, kind))
            lines.append("")
    for kind, title in (
        ("operator", "Operators"),
        ("source", "Kinds of dataset"),
        ("schedule", "Learning rate schedules"),
    ):
        lines += [f"## {title}", ""]
        if kind == "source":
            lines += [
                "The name is the `_target_` of a dataset's YAML file; its settings are keys below `source.NAME`.",
                "",
            ]
        lines += components(kind)
    return "\n".join(lines) + "\n"


def on_files(files: Any, config: Any) -> Any:
    """MkDocs' hook: adds the page, and README's figures, which other pages show too."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "reference/config.md", content=reference()))
    for path in sorted(FIGURES.glob("*.png")):
        files.append(File.generated(config, f"figures/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs' hook: README's figures lie elsewhere in the site than in the repository, where links lead to them too."""
    to_root = "../" * page.file.src_uri.count("/")
    return re.sub(r"\((\.\./)+\.github/", f"({to_root}figures/", markdown)


def on_config(config: Any) -> Any:
    """MkDocs' hook: lists the pages of a folder in the order of their names."""
    for entry in config.nav:
        for title, folder in entry.items():
            if isinstance(folder, str) and folder.endswith("/"):
                pages = sorted(path.name for path in Path(config.docs_dir, folder).glob("*.md"))
                entry[title] = [folder + name for name in pages]
    return config


if __name__ == "__main__":
    print(reference())
