"""Operators: pure functions of one record, compiled by JAX; attributes of this package, as `operators.to_float`."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from datamix import registry

_AUGMENT = ("color_jitter", "gaussian_noise", "random_crop", "random_erasing", "rotate")
_IMAGE = ("cast", "center_crop", "channels_last", "clip", "drop_alpha", "flip_horizontal", "log", "normalize", "pad")
_LABEL = ("class_label", "offset_label", "offset_one_hot", "one_hot", "tag_loss_weight", "tag_source")


@registry.builtin("operator", *_AUGMENT)
def _augment() -> ModuleType:
    from datamix.operators import augment

    return augment


@registry.builtin("operator", *_IMAGE, "resize", "to_float", "to_grayscale", "to_rgb")
def _image() -> ModuleType:
    from datamix.operators import image

    return image


@registry.builtin("operator", *_LABEL)
def _label() -> ModuleType:
    from datamix.operators import label

    return label


@registry.builtin("operator", "add_axis", "rename", "select", "squeeze", "transpose")
def _leaf() -> ModuleType:
    from datamix.operators import leaf

    return leaf


@registry.builtin("operator", "cutmix", "mixup")
def _pairs() -> ModuleType:
    from datamix.operators import pairs

    return pairs


@registry.builtin("operator", "mask_tokens", "next_token_targets", "prefix_source", "truncate")
def _text() -> ModuleType:
    from datamix.operators import text

    return text


def __getattr__(name: str) -> Any:
    if name not in registry.names("operator"):
        raise AttributeError(f"module 'datamix.operators' has no attribute {name!r}")
    return registry.lookup("operator", name)


def __dir__() -> list[str]:
    return registry.names("operator")
