# %% [markdown]
# # Two datasets, one stream
#
# MNIST and Fashion-MNIST as one dataset of 20 classes: alternating whole batches of the one and the other.
# The same as `python -m datamix experiment=interleaved_tutorial`, told in Python. Run it cell by cell, or as a script:
# overrides on its command line are added to those below, such as `data.dir=…`.

# %%
import sys

import numpy as np

import datamix

# %% [markdown]
# ## Say what to mix
#
# Each dataset's YAML file knows how its images become numbers: float32 / 255, then its own mean and deviation. Here
# each gives its first 2,000 records, or all it has, in an order drawn from a seed of its own. Where a dataset
# cannot be had, its stand-in takes its place, and a warning says so.

# %%
pipeline = datamix.load(
    "source=mnist+fashion",
    "source.mnist.split=train[:2000]",
    "source.mnist.seed=42",
    "source.fashion.split=train[:2000]",
    "source.fashion.seed=43",
    "mix=round_robin",
    "mix.granularity=batch",
    "batch.size=16",
    "data.stand_in=true",
    *sys.argv[1:],
)
print(pipeline.graph.tree())

# %% [markdown]
# ## Take ten batches
#
# Fashion's labels are 10 to 19, so that no two classes share a number; `source_id` says where a record comes from.

# %%
counts = np.zeros(2, int)
for step, batch in zip(range(10), pipeline, strict=False):
    counts += np.bincount(batch["source_id"], minlength=2)
    print(
        step, batch["image"].shape, batch["image"].dtype, "source", batch["source_id"][0], "labels", batch["label"][:8]
    )
print("records by source:", dict(zip(pipeline.source_names, counts.tolist(), strict=True)))

# %% [markdown]
# ## Any batch, at once
#
# A mix is a pure function of its position: batch 9 needs none of those before it.

# %%
again = pipeline[9]
print("the same batch:", all(np.array_equal(again[leaf], batch[leaf]) for leaf in batch))
