"""Operators: pure functions of one record, compiled by JAX. Each is here under its name: `operators.to_float`."""

from __future__ import annotations

from typing import Any

from datamix import registry


@registry.builtin("operator", "color_jitter", "gaussian_noise", "random_crop", "random_erasing", "rotate")
def _augment(name: str) -> Any:
    from datamix.operators import augment

    return getattr(augment, name)


@registry.builtin("operator", "cutmix", "mixup")
def _pairs(name: str) -> Any:
    from datamix.operators import pairs

    return getattr(pairs, name)


@registry.builtin("operator", "cast", "center_crop", "channels_last", "clip", "drop_alpha", "flip_horizontal", "log")
@registry.builtin("operator", "normalize", "pad", "resize", "to_float", "to_grayscale", "to_rgb")
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


@registry.builtin("operator", "add_axis", "rename", "select", "squeeze", "transpose")
def _leaf(name: str) -> Any:
    from datamix.operators import leaf

    return getattr(leaf, name)


def __getattr__(name: str) -> Any:
    if name not in registry.names("operator"):
        raise AttributeError(f"module 'datamix.operators' has no attribute {name!r}")
    return registry.lookup("operator", name)


def __dir__() -> list[str]:
    return registry.names("operator")
