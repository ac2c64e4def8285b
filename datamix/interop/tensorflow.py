"""Batches as a `tf.data` dataset, on which Keras can train too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datamix.errors import not_installed
from datamix.pipeline.batching import shard_rows
from datamix.pipeline.pipeline import Pipeline, require_loadable

if TYPE_CHECKING:
    import tensorflow as tf


def dataset(pipeline: Pipeline, *, shard: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
    """The batches of a pipeline, or one rank's rows of each: leaf name to tensor, which is a copy.

    Args:
      pipeline: The pipeline; if it is finite, the dataset knows its length.
      shard: (rank, num_shards).

    Raises:
      ConfigError: There is no such rank, or there are more ranks than rows in a batch.
      InstallationError: TensorFlow is not installed.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise not_installed("datamix.interop.tensorflow", "TensorFlow", "prepare") from error
    require_loadable(pipeline)
    batching = pipeline.batching
    batching.check_shard(shard)
    whole = shard_rows(batching.batch_size, *shard)
    rows = None if batching.short_rows else whole.stop - whole.start
    signature = {
        leaf: tf.TensorSpec((rows, *part.shape), tf.as_dtype(part.dtype)) for leaf, part in pipeline.spec.items()
    }
    batches = tf.data.Dataset.from_generator(lambda: pipeline.iterator(shard=shard), output_signature=signature)
    length = tf.data.INFINITE_CARDINALITY if batching.num_kept is None else batching.num_kept
    return batches.apply(tf.data.experimental.assert_cardinality(length))
