# %% [markdown]
# # Two datasets, one stream
#
# MNIST and Fashion-MNIST as one dataset of 20 classes, in batches that alternate between the two.
# This is `python -m datamix experiment=interleaved_tutorial` in Python. Run it cell by cell, or as a script:
# overrides on its command line are added to those below, such as `data.dir=…`.

# %%
import sys

import matplotlib.pyplot as plt
import numpy as np

import datamix

more = [] if "ipykernel" in sys.modules else sys.argv[1:]

# %% [markdown]
# ## Sources, each with its own preprocessing
#
# Each dataset's YAML file says how its images become numbers: float32 / 255, then its own mean and deviation. Here
# each gives its first 2,000 records, or all it has, in an order drawn from a seed of its own. If a dataset
# is not available, its stand-in takes its place, and a warning says so.

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
    *more,
)
print(pipeline.graph.tree())

# %% [markdown]
# ## Interleave them
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
# ## In a ratio
#
# Seven to three, record by record: at every moment, each source is within one record of its exact share. What a mix
# will do is known before a byte is read.

# %%
seven_to_three = datamix.load(
    "source=mnist+fashion", "source.mnist.limit=700", "source.fashion.limit=700", "mix.ratio=7:3", "data.stand_in=true",
    *more,
)  # fmt: skip
print(seven_to_three.plan.report())

# %% [markdown]
# ## Different formats in one mix
#
# Records of all sources must agree after their operators. Colour images of 32×32 pixels become grey ones of 28×28, by
# operators of their own; here they are arrays in memory, as your own data may be.

# %%
color = {
    "image": np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), np.uint8),
    "label": np.arange(200) % 5,
}
formats = datamix.load(
    "source=mnist+color",
    "source.color.operators=[{resize:{height:28,width:28}},to_grayscale,to_float]",
    "data.stand_in=true",
    *more,
    sources={"color": color},
)
print({leaf: str(part) for leaf, part in formats.spec.items()}, "classes", sorted({*formats[0]["label"].tolist()}))

# %% [markdown]
# ## The figure
#
# The first batch in the ratio, as it comes.

# %%
first = seven_to_three[0]
figure, axes = plt.subplots(2, 8, figsize=(8, 2.6))
for axis, image, source in zip(axes.flat, first["image"], first["source_id"], strict=True):
    axis.imshow(image[..., 0], cmap="gray")
    axis.set_title(seven_to_three.source_names[source], fontsize=8)
    axis.axis("off")
figure.savefig("interleaved.png")

# %% [markdown]
# ## What an interleaver cannot do
#
# A mix is a pure function of its position. Its state is a few integers: from any step, it continues with the same
# records, in the same order, under any number of workers.

# %%
iterator = seven_to_three.iterator()
for _ in range(5):
    next(iterator)
state = iterator.state_dict()
resumed = seven_to_three.iterator()
resumed.load_state_dict(state)
print("resumed at step 5:", np.array_equal(next(resumed)["image"], next(iterator)["image"]))

# %% [markdown]
# Any batch is available at once: batch 9 does not need those before it.

# %%
again = pipeline[9]
print("the same batch:", all(np.array_equal(again[leaf], batch[leaf]) for leaf in batch))
