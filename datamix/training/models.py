"""Small models for images and features, and the decorator that registers others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from datamix import registry
from datamix.errors import ConfigError

Images: TypeAlias = Float[jax.Array, "batch height width channels"]
Logits: TypeAlias = Float[jax.Array, "batch num_classes"]
Takes: TypeAlias = Mapping[str, str]
"""The leaves that a model may take, with their axes, named as in jaxtyping."""

_ANY: Takes = {"image": "...", "features": "..."}


def model(component: Callable[..., Any]) -> Callable[..., Any]:
    """Register a model under its name in snake_case.

    It is called with the shape of one image, the number of classes, Flax's random streams and, as keywords, the
    settings of the model's YAML file; it returns an `nnx.Module` that maps `Images` to `Logits`. Instead of images, it
    may take features [batch, features]; to predict a number, it has one output. For text it maps tokens, segment ids
    and positions, int32 [batch, length] each, to logits [batch, length, vocabulary]. A class attribute `takes` may list
    the leaves that it takes, which the error for any other leaf then names; see `Takes`.

    Args:
      component: The class of the model, or a function that makes it.

    Returns:
      The same component.

    Raises:
      RegistryError: The name is taken.

    >>> @model
    ... def average_for_doctest(shape, num_classes, rngs):
    ...     return Linear(shape, num_classes, rngs)
    """
    registry.register("model", registry.name_of(component), component)
    return component


def check_sizes(**sizes: int | Sequence[int]) -> None:
    """Check that sizes among the settings of a model, or lists of them, are 1 or more.

    Raises:
      ConfigError: A size is below 1.
    """
    for name, size in sizes.items():
        if min([size] if isinstance(size, int) else size, default=1) < 1:
            text = "it is 1 or more" if isinstance(size, int) else "each is 1 or more"
            raise ConfigError(text, key=f"model.{name}", value=size if isinstance(size, int) else [*size])


def check_dropout(dropout: float) -> None:
    """Check that a share of values to drop is in [0, 1).

    Raises:
      ConfigError: It is not.
    """
    if not 0 <= dropout < 1:
        raise ConfigError("it is 0 or more, and below 1", key="model.dropout", value=dropout)


class Linear(nnx.Module):
    """One linear layer from pixels to logits.

    >>> import jax.numpy as jnp
    >>> Linear((28, 28, 1), 20, nnx.Rngs(0))(jnp.zeros((3, 28, 28, 1))).shape
    (3, 20)
    """

    takes: ClassVar[Takes] = _ANY

    def __init__(self, shape: Sequence[int], num_classes: int, rngs: nnx.Rngs) -> None:
        self.head = nnx.Linear(math.prod(shape), num_classes, rngs=rngs)

    def __call__(self, image: Images) -> Logits:
        return self.head(image.reshape(len(image), -1))


class Mlp(nnx.Module):
    """Fully connected layers.

    Args:
      shape: The shape of one image.
      num_classes: The number of logits.
      rngs: The random streams of parameters and dropout.
      hidden: The width of each hidden layer.
      dropout: The share of the last hidden layer's values that a training step drops, in [0, 1).
    """

    takes: ClassVar[Takes] = _ANY

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        hidden: Sequence[int] = (128,),
        dropout: float = 0.0,
    ) -> None:
        check_sizes(hidden=hidden)
        check_dropout(dropout)
        widths = [math.prod(shape), *hidden]
        self.layers = nnx.List([nnx.Linear(before, after, rngs=rngs) for before, after in itertools.pairwise(widths)])
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(widths[-1], num_classes, rngs=rngs)

    def __call__(self, image: Images) -> Logits:
        values = image.reshape(len(image), -1)
        for layer in self.layers:
            values = nnx.relu(layer(values))
        return self.head(self.dropout(values))


class Convolution(nnx.Module):
    """A 3×3 convolution with stride 2, which halves the height and width of the image.

    It is written as a matrix product over patches: inside a loop, XLA's CPU backend takes ten times as long for its own
    convolution, and still longer under `vmap`, which makes it a grouped one.

    Args:
      channels: The number of channels of the image.
      features: The number of channels of the result.
      rngs: The random streams of the parameters.
    """

    def __init__(self, channels: int, features: int, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Linear(9 * channels, features, rngs=rngs)

    def __call__(self, image: Images) -> Float[jax.Array, "batch height/2 width/2 features"]:
        rows, columns = (-(-size // 2) for size in image.shape[1:3])
        padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
        patches = [padded[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2] for i in range(3) for j in range(3)]
        return self.kernel(jnp.concatenate(patches, axis=-1))


class Cnn(nnx.Module):
    """Convolutions, and one hidden layer.

    Args:
      shape: The shape of one image, [height, width, channels].
      num_classes: The number of logits.
      rngs: The random streams of parameters and dropout.
      features: The number of channels after each convolution.
      hidden: The width of the hidden layer.
      dropout: The share of the hidden layer's values that a training step drops, in [0, 1).
    """

    takes: ClassVar[Takes] = {"image": "height width channels"}

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        features: Sequence[int] = (16, 32),
        hidden: int = 64,
        dropout: float = 0.0,
    ) -> None:
        check_sizes(features=features, hidden=hidden)
        check_dropout(dropout)
        height, width, channels = shape
        widths = [channels, *features]
        self.convolutions = nnx.List([Convolution(before, after, rngs) for before, after in itertools.pairwise(widths)])
        for _ in features:
            height, width = -(-height // 2), -(-width // 2)
        self.hidden = nnx.Linear(height * width * widths[-1], hidden, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(hidden, num_classes, rngs=rngs)

    def __call__(self, image: Images) -> Logits:
        for convolution in self.convolutions:
            image = nnx.relu(convolution(image))
        return self.head(self.dropout(nnx.relu(self.hidden(image.reshape(len(image), -1)))))


class Prediction(NamedTuple):
    """Predicted numbers.

    Attributes:
      value: The number for each record.
      scale: The standard deviation of the training labels.
    """

    value: Float[jax.Array, " batch"]
    scale: Float[jax.Array, ""]


class Standardized(nnx.Module):
    """A model whose input has mean 0 and deviation 1, and so has the number that it predicts, if it predicts one.

    Args:
      model: The model.
      moments: The mean and deviation of its input, and of the label if it predicts a number.
    """

    def __init__(self, model: nnx.Module, moments: Sequence[tuple[jax.Array, jax.Array]]) -> None:
        self.model = model
        self.moments = nnx.List([nnx.List(map(nnx.Variable, each)) for each in moments])

    def __call__(self, values: Float[jax.Array, "batch ..."]) -> Any:
        (mean, deviation), *of_label = ([each[...] for each in pair] for pair in self.moments)
        outputs = self.model((values - mean) / deviation)
        if not of_label:
            return outputs
        ((center, scale),) = of_label
        return Prediction(center + scale * outputs[:, 0], scale)
