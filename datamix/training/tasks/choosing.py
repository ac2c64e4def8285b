"""Choose the task of a mix by the leaves of its records."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from datamix.builder.built import Built
from datamix.builder.texts import packed
from datamix.errors import ConfigError, DataError, of_source
from datamix.spec import LeafSpec
from datamix.training.tasks.base import Task
from datamix.training.tasks.classification import Classification
from datamix.training.tasks.language import Language
from datamix.training.tasks.regression import Regression


def choose(built: Built) -> Callable[[Built], Task]:
    """Choose the task that a model can learn from a mix, before its records are read.

    Returns:
      A function that makes the task from the mix with complete numbers of classes.

    Raises:
      ConfigError: The records have nothing to learn from, or the number of classes is not known.
    """
    spec = built.spec()
    if "source_id" not in spec:
        raise ConfigError("an operator drops or renames the leaf source_id, by which job=train tests", key="operators")
    if "tokens" in spec and len(spec["tokens"].shape) == 1 and np.dtype(spec["tokens"].dtype).kind in "iu":
        return lambda built: Language(shape=spec["tokens"].shape, num_outputs=_vocab_size(built))
    label = spec.get("label")
    leaf = "image" if "image" in spec else "features"
    part = spec.get(leaf)
    if part is None or label is None or "float" not in part.dtype or not part.shape or len(label.shape) > 1:
        raise _nothing_to_learn(spec)
    if label.shape:
        if "float" not in label.dtype or not (built.labels.kind == "class" or built.labels.num_classes):
            raise _nothing_to_learn(spec)
        return lambda _: Classification(leaf=leaf, shape=part.shape, num_outputs=label.shape[0])
    if built.labels.kind == "number":
        return lambda _: Regression(leaf=leaf, shape=part.shape)
    if np.dtype(label.dtype).kind not in "iu":
        raise _nothing_to_learn(spec)
    for name in built.sources:
        if name not in built.labels.num_classes and not num_classes(built, name):
            text = "operators make its labels, and how many classes there are is not known"
            raise ConfigError(of_source(name, f"{text}; set source.{name}.num_classes."))
    return lambda built: Classification(leaf=leaf, shape=part.shape, num_outputs=_total(built))


def of_outputs(task: Task, built: Built) -> np.ndarray:
    """The constants of a task for each output: the source of each class, or the bytes of each token; [num_outputs].

    If the text of tokens is not known, their bytes are 0.
    """
    known = np.zeros(task.num_outputs, np.int32 if isinstance(task, Language) else np.uint32)
    if isinstance(task, Language):
        tokenizers = [source.known_tokenizer for source in packed(built.sources).values()]
        if tokenizers and len(tokenizers) == len(built.sources) and (first := tokenizers[0]) is not None:
            known[: len(first.token_bytes)] = first.token_bytes
    elif isinstance(task, Classification):
        for i, labels in enumerate(classes(built).values()):
            known[labels.start : labels.stop] = i
    return known


def classes(built: Built) -> dict[str, range]:
    """The class numbers of each source."""
    counts = {name: num_classes(built, name) or 0 for name in built.sources}
    offsets = {name: built.offset(name) or 0 for name in built.sources}
    return {name: range(offsets[name], offsets[name] + count) for name, count in counts.items()}


def num_classes(built: Built, source: str) -> int | None:
    """The number of classes of a source; None if it is not known."""
    return built.labels.num_classes.get(source) or built.sources[source].declared_num_classes


def _total(built: Built) -> int:
    if not (total := max(labels.stop for labels in classes(built).values())):
        raise DataError("no record of the mix has a class; there is nothing to be learnt from labels that are all -1.")
    return total


def _vocab_size(built: Built) -> int:
    """The size of the vocabulary, including the tokens that operators add."""
    token_sources = packed(built.sources)
    sizes = [source.vocab_size for source in token_sources.values()]
    for name in built.sources.keys() - token_sources.keys():
        if not (number := built.sources[name].declared_num_classes):
            mend = "Set it; or text and tokens read what knows its tokens."
            raise ConfigError(
                "of its tokens, nobody knows how many there may be", key=f"source.{name}.num_classes", hint=mend
            )
        sizes.append(number)
    chains = [built.operators, *(source.operators for source in built.sources.values())]
    extra = [each.settings.get(key, 0) for chain in chains for each in chain for key in ("token", "mask_token")]
    return max(*sizes, *(int(token) + 1 for token in extra), 1)


def _nothing_to_learn(spec: Mapping[str, LeafSpec]) -> ConfigError:
    listed = ", ".join(f"{leaf} {part}" for leaf, part in spec.items())
    return ConfigError(
        "job=train takes records with a float image and an integer label, or one_hot's; this mix gives "
        f"{listed}. to_float makes numbers of pixels. Or with float features and a label, a class or a number, as "
        "table gives them; or with tokens, as text does."
    )
