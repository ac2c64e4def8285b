"""Operators: pure functions of one record, compiled by JAX. Each is here under its name: `operators.to_float`."""

from __future__ import annotations

from typing import Any

from datamix import registry


@registry.builtin("operator", "cast", "channels_last", "drop_alpha", "flip_horizontal", "normalize", "resize")
@registry.builtin("operator", "to_float", "to_grayscale", "to_rgb")
def _image(name: str) -> Any:
    from datamix.operators import image

    return getattr(image, name)


@registry.builtin(
    "operator", "class_label", "offset_label", "offset_one_hot", "one_hot", "tag_loss_weight", "tag_source"
)
def _label(name: str) -> Any:
    from datamix.operators import label

    return getattr(label, name)


@registry.builtin("operator", "mask_tokens", "next_token_targets", "prefix_source", "truncate")
def _text(name: str) -> Any:
    from datamix.operators import text

    return getattr(text, name)


@registry.builtin("operator", "add_axis", "rename", "squeeze")
def _leaf(name: str) -> Any:
    from datamix.operators import leaf

    return getattr(leaf, name)


def __getattr__(name: str) -> Any:
    if name not in registry.names("operator"):
        raise AttributeError(f"module 'datamix.operators' has no attribute {name!r}")
    return registry.lookup("operator", name)


def __dir__() -> list[str]:
    return registry.names("operator")
