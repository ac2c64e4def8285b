"""Operators: pure functions of one record, compiled by JAX. Each is here under its name: `operators.to_float`."""

from __future__ import annotations

from typing import Any

from datamix import registry

_AUGMENT = ("color_jitter", "gaussian_noise", "random_crop", "random_erasing", "rotate")
_IMAGE = ("cast", "center_crop", "channels_last", "clip", "drop_alpha", "flip_horizontal", "log", "normalize", "pad")
_LABEL = ("class_label", "offset_label", "offset_one_hot", "one_hot", "tag_loss_weight", "tag_source")
registry.builtin("operator", f"{__name__}.augment", *_AUGMENT)
registry.builtin("operator", f"{__name__}.image", *_IMAGE, "resize", "to_float", "to_grayscale", "to_rgb")
registry.builtin("operator", f"{__name__}.label", *_LABEL)
registry.builtin("operator", f"{__name__}.leaf", "add_axis", "rename", "select", "squeeze", "transpose")
registry.builtin("operator", f"{__name__}.pairs", "cutmix", "mixup")
registry.builtin("operator", f"{__name__}.text", "mask_tokens", "next_token_targets", "prefix_source", "truncate")


def __getattr__(name: str) -> Any:
    if name not in registry.names("operator"):
        raise AttributeError(f"module 'datamix.operators' has no attribute {name!r}")
    return registry.lookup("operator", name)


def __dir__() -> list[str]:
    return registry.names("operator")
