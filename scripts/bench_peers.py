"""How fast others do the same work: a table of samples per second, one contestant a process, measured in rounds.

    pip install -e . torch tensorflow-cpu datasets grain datarax
    python scripts/bench_peers.py

The work: two sources of 20,000 uint8 images of 28×28×1 in memory, shuffled, mixed one to one without end, each
normalised in its own way, labels of the second raised by 10, the source's number added; batches of float32 images and
int32 labels. A library that is not installed is left out and said so. Every contestant first gives 20,480 records,
whose sources, labels and pixels are checked; then all run in rounds, so that a busy moment of the machine meets them
all, and the median counts. Settings are each library's own fastest that do this work, as far as we know them; where
several come to mind, each has a row. What is said to be missing was not found in the library's documentation.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

NUM_RECORDS = 20_000
NUM_CHECKED = 20_480
MEAN, STD = np.float32([0.1307, 0.2860]), np.float32([0.3081, 0.3530])
NAMES = ("first", "second")
Batches = Iterator[dict[str, Any]]


def data() -> list[dict[str, np.ndarray]]:
    """The two sources; a record's brightness tells its source and label."""
    generator = np.random.default_rng(0)
    sources = []
    for source in range(2):
        label = generator.integers(0, 10, NUM_RECORDS)
        noise = generator.integers(0, 40, (NUM_RECORDS, 28, 28, 1), dtype=np.uint8)
        bright = (label * 18 + source * 9).astype(np.uint8)
        sources.append({"image": noise + bright[:, None, None, None], "label": label})
    return sources


def finished(image: Any, label: Any, source: int) -> tuple[Any, Any]:
    """The work on records of one source, in NumPy."""
    factor = np.float32(1 / 255) / STD[source]
    return image.astype(np.float32) * factor - MEAN[source] / STD[source], (label + 10 * source).astype(np.int32)


def datamix(batch_size: int, output: str = "numpy") -> Batches:
    """datamix: exact shares, every epoch another order."""
    import datamix

    operators = [
        f"source.{name}.operators=[to_float,{{normalize:{{mean:{MEAN[i]},std:{STD[i]}}}}}]"
        for i, name in enumerate(NAMES)
    ]
    sources = dict(zip(NAMES, data(), strict=True))
    pipeline = datamix.load("stop=forever", f"batch.size={batch_size}", *operators, sources=sources)
    return pipeline.iterator(output=output)  # type: ignore[arg-type]


def datamix_jax(batch_size: int) -> Batches:
    """The same, as arrays on the device."""
    return datamix(batch_size, "jax")


def numpy(batch_size: int) -> Batches:
    """By hand: half of each batch from each source, whole-batch operations."""
    sources, generator = data(), np.random.default_rng(0)
    orders = [generator.permutation(NUM_RECORDS) for _ in sources]
    at, half = 0, batch_size // 2
    while True:
        if at + half > NUM_RECORDS:
            orders, at = [generator.permutation(NUM_RECORDS) for _ in sources], 0
        batch = {
            "image": np.empty((batch_size, 28, 28, 1), np.float32),
            "label": np.empty(batch_size, np.int32),
            "source_id": np.empty(batch_size, np.int32),
        }
        for i, source in enumerate(sources):
            chosen = orders[i][at : at + half]
            batch["image"][i::2], batch["label"][i::2] = finished(source["image"][chosen], source["label"][chosen], i)
            batch["source_id"][i::2] = i
        at += half
        yield batch


def fill(batch_size: int) -> Batches:
    """No work at all: the output's bytes, written into memory that is already there."""
    batch = {
        "image": np.empty((batch_size, 28, 28, 1), np.float32),
        "label": np.empty(batch_size, np.int32),
        "source_id": np.empty(batch_size, np.int32),
    }
    while True:
        for values in batch.values():
            values.fill(1)
        yield batch


def _tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    return tf


def _tf_map(tf: Any, source: int) -> Callable[[Any], Any]:
    factor, shift = float(np.float32(1 / 255) / STD[source]), float(MEAN[source] / STD[source])

    def work(record: Any) -> Any:
        label = tf.cast(record["label"], tf.int32) + 10 * source
        image = tf.cast(record["image"], tf.float32) * factor - shift
        return {"image": image, "label": label, "source_id": tf.fill(tf.shape(label), source)}

    return work


def tf_data_batches(batch_size: int) -> Batches:
    """tf.data: whole batches of one source, vectorised map, parallel; batches are not mixed within."""
    tf = _tensorflow()
    parts = [
        tf.data.Dataset.from_tensor_slices(source)
        .shuffle(NUM_RECORDS)
        .repeat()
        .batch(batch_size)
        .map(_tf_map(tf, i), num_parallel_calls=tf.data.AUTOTUNE)
        for i, source in enumerate(data())
    ]
    mixed = tf.data.Dataset.sample_from_datasets(parts, [0.5, 0.5]).prefetch(tf.data.AUTOTUNE)
    return mixed.as_numpy_iterator()  # type: ignore[no-any-return]


def tf_data_records(batch_size: int) -> Batches:
    """tf.data: `sample_from_datasets` record by record, the map on each record."""
    tf = _tensorflow()
    parts = [
        tf.data.Dataset.from_tensor_slices(source)
        .shuffle(NUM_RECORDS)
        .repeat()
        .map(_tf_map(tf, i), num_parallel_calls=tf.data.AUTOTUNE)
        for i, source in enumerate(data())
    ]
    mixed = tf.data.Dataset.sample_from_datasets(parts, [0.5, 0.5]).batch(batch_size).prefetch(tf.data.AUTOTUNE)
    return mixed.as_numpy_iterator()  # type: ignore[no-any-return]


def torch(batch_size: int, num_workers: int = 0) -> Batches:
    """torch: ConcatDataset and WeightedRandomSampler with replacement; 0 workers."""
    import torch as library
    from torch.utils.data import ConcatDataset, DataLoader, Dataset, WeightedRandomSampler

    class Part(Dataset):
        def __init__(self, source: int, arrays: dict[str, np.ndarray]) -> None:
            self.source = source
            self.image, self.label = (library.from_numpy(arrays[leaf]) for leaf in ("image", "label"))
            self.factor, self.shift = float(1 / 255 / STD[source]), float(MEAN[source] / STD[source])

        def __len__(self) -> int:
            return len(self.label)

        def __getitem__(self, index: int) -> Any:
            image = self.image[index].float().mul_(self.factor).sub_(self.shift)
            return {"image": image, "label": self.label[index] + 10 * self.source, "source_id": self.source}

    parts = ConcatDataset([Part(i, arrays) for i, arrays in enumerate(data())])
    while True:
        sampler = WeightedRandomSampler(library.ones(len(parts)), len(parts))
        yield from DataLoader(parts, batch_size, sampler=sampler, num_workers=num_workers, drop_last=True)


def torch_workers(batch_size: int) -> Batches:
    """The same with 2 worker processes."""
    return torch(batch_size, 2)


def hf(batch_size: int) -> Batches:
    """Hugging Face datasets: `interleave_datasets`; images as bytes and Arrow batches, the work on whole batches."""
    import datasets

    datasets.disable_progress_bars()
    kinds = {"image": "binary", "label": "int32", "source_id": "int32"}
    features = datasets.Features({leaf: datasets.Value(kind) for leaf, kind in kinds.items()})
    parts = []
    for i, arrays in enumerate(data()):
        images = [image.tobytes() for image in arrays["image"]]
        rows = {"image": images, "label": arrays["label"], "source_id": np.full(NUM_RECORDS, i)}
        parts.append(datasets.Dataset.from_dict(rows, features))
    epoch = 0
    while True:
        shuffled = [part.shuffle(seed=epoch) for part in parts]
        mixed = datasets.interleave_datasets(shuffled, [0.5, 0.5], seed=epoch, stopping_strategy="first_exhausted")
        epoch += 1
        for table in mixed.with_format("arrow").iter(batch_size, drop_last_batch=True):
            source = table["source_id"].to_numpy()
            pixels = np.frombuffer(b"".join(table["image"].to_pylist()), np.uint8).reshape(-1, 28, 28, 1)
            factor = (np.float32(1 / 255) / STD[source])[:, None, None, None]
            image = pixels.astype(np.float32) * factor - (MEAN / STD)[source][:, None, None, None]
            yield {"image": image, "label": table["label"].to_numpy() + 10 * source, "source_id": source}


def grain(batch_size: int, num_threads: int = 0) -> Batches:
    """Grain: `MapDataset.mix`, the work on each record, no threads."""
    import grain.python as library

    def work(i: int, arrays: dict[str, np.ndarray]) -> Callable[[int], Any]:
        def record(index: int) -> Any:
            image, label = finished(arrays["image"][index], arrays["label"][index], i)
            return {"image": image, "label": label, "source_id": np.int32(i)}

        return record

    parts = [
        library.MapDataset.range(NUM_RECORDS).seed(i).shuffle().repeat().map(work(i, arrays))
        for i, arrays in enumerate(data())
    ]
    mixed = library.MapDataset.mix(parts, [0.5, 0.5]).batch(batch_size)
    options = library.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads and 8)
    return iter(mixed.to_iter_dataset(options))


def grain_threads(batch_size: int) -> Batches:
    """The same with 2 threads."""
    return grain(batch_size, 2)


def datarax(batch_size: int) -> Batches:
    """Datarax: `MixDataSourcesNode` in its compiled `Pipeline`, rows with replacement, the work on whole batches."""
    import jax.numpy as jnp
    from datarax.pipeline import Pipeline
    from datarax.sources import MemorySource, MemorySourceConfig, MixDataSourcesConfig, MixDataSourcesNode
    from flax import nnx

    class Work(nnx.Module):
        def __call__(self, batch: Any) -> Any:
            source = batch["source_id"]
            factor = jnp.asarray(np.float32(1 / 255) / STD)[source][:, None, None, None]
            image = batch["image"].astype(jnp.float32) * factor - jnp.asarray(MEAN / STD)[source][:, None, None, None]
            return {"image": image, "label": batch["label"] + 10 * source, "source_id": source}

    parts = []
    for i, arrays in enumerate(data()):
        arrays = {leaf: jnp.asarray(values) for leaf, values in arrays.items()}
        arrays["source_id"] = jnp.full(NUM_RECORDS, i, jnp.int32)
        parts.append(MemorySource(MemorySourceConfig(), arrays, rngs=nnx.Rngs(i)))
    mixed = MixDataSourcesNode(MixDataSourcesConfig(num_sources=2, weights=(0.5, 0.5)), parts, rngs=nnx.Rngs(0))
    pipeline = Pipeline(source=mixed, stages=[Work()], batch_size=batch_size, rngs=nnx.Rngs(0))
    while True:  # a pipeline ends with as many records as its sources hold
        pipeline._position[...] = jnp.int32(0)
        yield from pipeline


# What each is called in the table, the distributions it needs, and what it cannot do of what datamix does here.
RANDOM = "draws the ratio at random"
CONTESTANTS: dict[str, tuple[Callable[[int], Batches], str, str]] = {
    "datamix": (datamix, "datamix-jax", ""),
    "datamix, output=jax": (datamix_jax, "datamix-jax", ""),
    "hand-vectorised NumPy": (numpy, "numpy", "one ratio, one batch size; no resume, no seeking"),
    "Datarax MixDataSourcesNode": (datarax, "datarax", f"{RANDOM}; rows with replacement, so there are no epochs"),
    "tf.data, batches of one source": (
        tf_data_batches,
        "tensorflow",
        f"{RANDOM}; no batch holds both sources; no seeking",
    ),
    "tf.data, record by record": (tf_data_records, "tensorflow", f"{RANDOM}; no seeking"),
    "torch": (torch, "torch", f"{RANDOM}; rows with replacement; no seeking"),
    "torch, 2 workers": (torch_workers, "torch", f"{RANDOM}; rows with replacement; no seeking"),
    "HF interleave_datasets": (hf, "datasets", f"{RANDOM}; ends with the first source, is then built anew"),
    "Grain MapDataset.mix": (grain, "grain", ""),
    "Grain MapDataset.mix, 2 threads": (grain_threads, "grain", ""),
    "filling the output, nothing else": (fill, "numpy", "no work done"),
}


def check(batches: Batches, batch_size: int) -> None:
    """Raise AssertionError unless the first records are what the work asks for, in distribution and in each pixel."""
    sources, labels, levels = [], [], []
    for _, batch in zip(range(-(-NUM_CHECKED // batch_size)), batches, strict=False):
        image = np.asarray(batch["image"])
        assert image.shape == (batch_size, 28, 28, 1), image.shape
        assert image.dtype == np.float32, image.dtype
        source = np.asarray(batch["source_id"]).astype(int)
        sources.append(source)
        labels.append(np.asarray(batch["label"]).astype(int))
        raw = (image * STD[source][:, None, None, None] + MEAN[source][:, None, None, None]) * 255
        levels.append(raw.reshape(batch_size, -1))
    source, label, pixels = np.concatenate(sources), np.concatenate(labels), np.concatenate(levels)
    count = np.array([[np.sum((source == i) & (label == 10 * i + k)) for k in range(10)] for i in range(2)])
    assert count.sum() == len(source), "a label that belongs to no source"
    # Five standard deviations of independent draws, the widest of all ways to mix; batches of one source are wider yet.
    share, spread = count.sum(axis=1) / len(source), 5 * np.sqrt(0.25 / (len(source) / batch_size))
    assert abs(share - 0.5).max() < min(spread, 0.49), share
    expected = np.array([np.bincount(arrays["label"], minlength=10) / NUM_RECORDS for arrays in data()])
    off = np.abs(count / count.sum(axis=1, keepdims=True) - expected).max()
    assert off < 5 * np.sqrt(0.1 / (len(source) / 2)), off
    lowest = (label - 10 * source) * 18 + source * 9
    assert (pixels > lowest[:, None] - 0.5).all(), "a pixel darker than its record"
    assert (pixels < lowest[:, None] + 39.5).all(), "a pixel brighter than its record"


def work(name: str, batch_size: int, seconds: float) -> None:
    """One contestant's process: it answers each line on standard input with the samples per second of one round."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    batches = iter(CONTESTANTS[name][0](batch_size))
    if name != "filling the output, nothing else":
        check(batches, batch_size)
    wait = name.endswith("output=jax") or name.startswith("Datarax")
    for _ in sys.stdin:
        begun, count = time.perf_counter(), 0
        while (passed := time.perf_counter() - begun) < seconds:
            for _ in range(max(1, 1024 // batch_size)):
                batch = next(batches)
                count += batch_size
            if wait:
                batch["image"].block_until_ready()
        print(count / passed, file=answers, flush=True)


def measure(names: list[str], batch_size: int, seconds: float, repeats: int) -> dict[str, dict[str, Any]]:
    """Samples per second of each contestant: its median, and all rounds."""
    processes, rows = {}, {}
    for name in names:
        distribution = CONTESTANTS[name][1]
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            print(f"{name}: {distribution} is not installed", file=sys.stderr)
            continue
        command = [sys.executable, __file__, "--worker", name, "--batch", str(batch_size), "--seconds", str(seconds)]
        processes[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        rows[name] = {"version": f"{distribution} {version}", "lacks": CONTESTANTS[name][2], "rounds": []}
    try:
        for repeat in range(repeats + 1):  # the first round warms up, checks, and does not count
            for name in list(processes):
                process = processes[name]
                try:
                    print("go", file=process.stdin, flush=True)
                    answer = process.stdout.readline()  # type: ignore[union-attr]
                except OSError:
                    answer = ""
                if not answer:
                    error = (process.communicate()[1].strip().splitlines() or ["it ended"])[-1]
                    print(f"{name}: {error}", file=sys.stderr)
                    del processes[name], rows[name]
                elif repeat:
                    rows[name]["rounds"].append(float(answer))
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
    for row in rows.values():
        row["samples_per_s"] = statistics.median(row["rounds"])
    return rows


def markdown(results: dict[int, dict[str, dict[str, Any]]]) -> str:
    """The table: thousand samples per second, and how many times as fast datamix is."""
    sizes = list(results)
    head = [
        "",
        *(f"batch {size}: k/s" for size in sizes),
        *(f"datamix is, at {size}" for size in sizes),
        "does not",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    names = sorted(results[sizes[0]], key=lambda name: -results[sizes[0]][name]["samples_per_s"])
    for name in names:
        cells = [name]
        rates = [results[size].get(name, {}).get("samples_per_s") for size in sizes]
        ours = [results[size].get("datamix", {}).get("samples_per_s") for size in sizes]
        cells += ["–" if rate is None else f"{rate / 1000:,.0f}" for rate in rates]
        cells += [
            "–" if rate is None or our is None else f"{our / rate:.{1 if our / rate >= 1 else 2}f}×"
            for rate, our in zip(rates, ours, strict=True)
        ]
        lines.append("| " + " | ".join([*cells, results[sizes[0]][name]["lacks"] or "–"]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 16], help="batch sizes")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each round")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each contestant")
    parser.add_argument("--only", nargs="+", choices=list(CONTESTANTS), help="contestants; all, if not given")
    parser.add_argument("--json", type=Path, default=Path("bench_peers.json"), help="where the results go")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.batch[0], arguments.seconds)
        return
    names = arguments.only or list(CONTESTANTS)
    results = {size: measure(names, size, arguments.seconds, arguments.repeats) for size in arguments.batch}
    arguments.json.write_text(json.dumps({"cores": os.cpu_count(), "batch": results}, indent=1) + "\n")
    print(markdown(results))


if __name__ == "__main__":
    main()
