"""Compare datamix with other libraries at the same work: a table of records per second, measured in rounds.

    pip install -e . torch tensorflow-cpu datasets grain 'datarax>=0.1.17'
    python scripts/bench_peers.py
    python scripts/bench_peers.py --bytes 784 12288 150528 --where memory disk --batch 256

The work: shuffle two sources of uint8 images, mix them one to one without end, normalise each in its own way, add 10 to
the labels of the second, and add the number of the source; the results are batches of float32 images and int32 labels.
Images are 28×28×1 (784 bytes, 20,000 per source), 64×64×3 (12,288 bytes) or 224×224×3 (150,528 bytes). They are in
memory, or in files in the cache of the operating system, which each library reads in its own way. Libraries that are
not installed are listed as left out. Each contestant runs in its own process and first makes several thousand records,
whose sources, labels and pixels are checked; then all run in rounds, so that background load affects all of them, and
the median counts. Settings are the fastest of each library for this work that we know of; if several are plausible,
each has a row. Features that the table calls missing were not found in the library's documentation.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

SHAPES = {784: (28, 28, 1), 12_288: (64, 64, 3), 150_528: (224, 224, 3)}
MEAN, STD = np.float32([0.1307, 0.2860]), np.float32([0.3081, 0.3530])
NAMES = ("first", "second")
Batches = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Work:
    """The work: the bytes of a record, and the folder of the files; None for memory."""

    num_bytes: int = 784
    directory: Path | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return SHAPES[self.num_bytes]

    @property
    def num_records(self) -> int:
        """The number of records of each source."""
        return min(20_000, 2**26 // self.num_bytes)

    @property
    def num_checked(self) -> int:
        return max(5_120, min(20_480, 3 * self.num_records))  # 20 batches or more: random shares are checked


WORK = Work()  # of this process


def data() -> list[dict[str, np.ndarray]]:
    """The two sources; the brightness of a record encodes its source and label."""
    if WORK.directory is not None:
        paths = [{leaf: WORK.directory / f"{name}-{leaf}.npy" for leaf in ("image", "label")} for name in NAMES]
        # Copy on write: torch needs writable memory.
        return [{"image": np.load(each["image"], mmap_mode="c"), "label": np.load(each["label"])} for each in paths]
    generator = np.random.default_rng(0)
    sources = []
    for source in range(2):
        label = generator.integers(0, 10, WORK.num_records)
        image = generator.integers(0, 40, (WORK.num_records, *WORK.shape), dtype=np.uint8)
        image += (label * 18 + source * 9).astype(np.uint8)[:, None, None, None]
        sources.append({"image": image, "label": label})
    return sources


def save(num_bytes: int, directory: Path) -> None:
    """Write both sources to files."""
    global WORK
    WORK = Work(num_bytes)
    for name, arrays in zip(NAMES, data(), strict=True):
        for leaf, values in arrays.items():
            np.save(directory / f"{name}-{leaf}.npy", values)


def finished(image: Any, label: Any, source: int) -> tuple[Any, Any]:
    """The work on records of one source, in NumPy."""
    factor = np.float32(1 / 255) / STD[source]
    return image.astype(np.float32) * factor - MEAN[source] / STD[source], (label + 10 * source).astype(np.int32)


def datamix(batch_size: int, output: str = "numpy") -> Batches:
    """datamix: exact shares, and a new order in every epoch."""
    import datamix

    operators = [
        f"source.{name}.operators=[to_float,{{normalize:{{mean:{MEAN[i]},std:{STD[i]}}}}}]"
        for i, name in enumerate(NAMES)
    ]
    sources = dict(zip(NAMES, data(), strict=True))
    placement = f"data.placement={'device' if WORK.directory is None else 'host'}"
    pipeline = datamix.load("stop=forever", f"batch.size={batch_size}", placement, *operators, sources=sources)
    return pipeline.iterator(output=output)  # type: ignore[arg-type]


def datamix_jax(batch_size: int) -> Batches:
    """The same, as arrays on the device."""
    return datamix(batch_size, "jax")


def numpy(batch_size: int) -> Batches:
    """Hand-written NumPy: half of each batch from each source, operations on whole batches."""
    sources, generator = data(), np.random.default_rng(0)
    orders = [generator.permutation(WORK.num_records) for _ in sources]
    at, half = 0, batch_size // 2
    while True:
        if at + half > WORK.num_records:
            orders, at = [generator.permutation(WORK.num_records) for _ in sources], 0
        batch = {
            "image": np.empty((batch_size, *WORK.shape), np.float32),
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
    """No work at all: write the bytes of the output into allocated memory."""
    batch = {
        "image": np.empty((batch_size, *WORK.shape), np.float32),
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


def _tf_parts(tf: Any) -> list[Any]:
    """The sources, shuffled and without end; the shuffle buffer holds every record, even of files."""
    parts = []
    for arrays in data():
        if WORK.directory is None:
            part = tf.data.Dataset.from_tensor_slices(arrays)
        else:
            image = arrays["image"]
            files = tf.data.FixedLengthRecordDataset(image.filename, WORK.num_bytes, header_bytes=image.offset)
            pixels = files.map(lambda raw: tf.reshape(tf.io.decode_raw(raw, tf.uint8), WORK.shape))
            part = tf.data.Dataset.zip({"image": pixels, "label": tf.data.Dataset.from_tensor_slices(arrays["label"])})
        parts.append(part.shuffle(WORK.num_records).repeat())
    return parts


def tf_data_batches(batch_size: int) -> Batches:
    """tf.data: whole batches of one source, vectorised map, parallel; batches are not mixed within."""
    tf = _tensorflow()
    parts = [
        part.batch(batch_size).map(_tf_map(tf, i), num_parallel_calls=tf.data.AUTOTUNE)
        for i, part in enumerate(_tf_parts(tf))
    ]
    mixed = tf.data.Dataset.sample_from_datasets(parts, [0.5, 0.5]).prefetch(tf.data.AUTOTUNE)
    return mixed.as_numpy_iterator()  # type: ignore[no-any-return]


def tf_data_records(batch_size: int) -> Batches:
    """tf.data: `sample_from_datasets` record by record, the map on each record."""
    tf = _tensorflow()
    parts = [part.map(_tf_map(tf, i), num_parallel_calls=tf.data.AUTOTUNE) for i, part in enumerate(_tf_parts(tf))]
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
    """Hugging Face datasets: `interleave_datasets` of images as bytes, in Arrow batches; the work on whole batches."""
    import datasets

    datasets.disable_progress_bars()
    kinds = {"image": "binary", "label": "int32", "source_id": "int32"}
    features = datasets.Features({leaf: datasets.Value(kind) for leaf, kind in kinds.items()})
    parts = []
    for i, arrays in enumerate(data()):
        images = [image.tobytes() for image in arrays["image"]]
        rows = {"image": images, "label": arrays["label"], "source_id": np.full(WORK.num_records, i)}
        part = datasets.Dataset.from_dict(rows, features)
        if WORK.directory is not None:
            part.save_to_disk(path := WORK.directory / f"{NAMES[i]}-arrow")
            part = datasets.load_from_disk(path)
        parts.append(part)
    epoch = 0
    while True:
        shuffled = [part.shuffle(seed=epoch) for part in parts]
        mixed = datasets.interleave_datasets(shuffled, [0.5, 0.5], seed=epoch, stopping_strategy="first_exhausted")
        epoch += 1
        for table in mixed.with_format("arrow").iter(batch_size, drop_last_batch=True):
            source = table["source_id"].to_numpy()
            pixels = np.frombuffer(b"".join(table["image"].to_pylist()), np.uint8).reshape(-1, *WORK.shape)
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
        library.MapDataset.range(WORK.num_records).seed(i).shuffle().repeat().map(work(i, arrays))
        for i, arrays in enumerate(data())
    ]
    mixed = library.MapDataset.mix(parts, [0.5, 0.5]).batch(batch_size)
    options = library.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads and 8)
    return iter(mixed.to_iter_dataset(options))


def grain_threads(batch_size: int) -> Batches:
    """The same with 2 threads."""
    return grain(batch_size, 2)


def _datarax_sources(*, shuffle: bool) -> list[Any]:
    import jax.numpy as jnp
    from datarax.sources import MemorySource, MemorySourceConfig
    from flax import nnx

    parts = []
    for i, arrays in enumerate(data()):
        leaves = {leaf: jnp.asarray(values) for leaf, values in arrays.items()}
        leaves["source_id"] = jnp.full(WORK.num_records, i, jnp.int32)
        parts.append(MemorySource(MemorySourceConfig(shuffle=shuffle), leaves, rngs=nnx.Rngs(i)))
    return parts


def datarax(batch_size: int) -> Batches:
    """Datarax: `MixDataSourcesNode` in its compiled `Pipeline`, rows with replacement, the work on whole batches."""
    import jax.numpy as jnp
    from datarax.pipeline import Pipeline
    from datarax.sources import MixDataSourcesConfig, MixDataSourcesNode
    from flax import nnx

    class Stage(nnx.Module):
        def __call__(self, batch: Any) -> Any:
            source = batch["source_id"]
            factor = jnp.asarray(np.float32(1 / 255) / STD)[source][:, None, None, None]
            image = batch["image"].astype(jnp.float32) * factor - jnp.asarray(MEAN / STD)[source][:, None, None, None]
            return {"image": image, "label": batch["label"] + 10 * source, "source_id": source}

    config = MixDataSourcesConfig(num_sources=2, weights=(0.5, 0.5))
    mixed = MixDataSourcesNode(config, _datarax_sources(shuffle=False), rngs=nnx.Rngs(0))
    return iter(Pipeline(source=mixed, stages=[Stage()], batch_size=batch_size, rngs=nnx.Rngs(0), num_epochs=None))


def datarax_tutorial(batch_size: int) -> Batches:
    """Datarax, as in its tutorial on several sources: a pipeline per source, whose batches alternate."""
    import jax.numpy as jnp
    from datarax.operators import ElementOperator, ElementOperatorConfig
    from datarax.pipeline import Pipeline
    from flax import nnx

    def prepare(i: int) -> Callable[..., Any]:
        def work(element: Any, key: Any = None) -> Any:  # noqa: ARG001
            record = element.data
            image = (record["image"].astype(jnp.float32) / 255.0 - MEAN[i]) / STD[i]
            return element.update_data({"image": image, "label": record["label"] + 10 * i})

        return work

    pipelines = []
    for i, part in enumerate(_datarax_sources(shuffle=True)):
        stage = ElementOperator(ElementOperatorConfig(stochastic=False), fn=prepare(i), rngs=nnx.Rngs(0))
        pipeline = Pipeline(source=part, stages=[stage], batch_size=batch_size, rngs=nnx.Rngs(0), num_epochs=None)
        pipelines.append(iter(pipeline))
    while True:
        for batches in pipelines:
            yield next(batches)


# By name in the table: the function, the distribution that it needs, and what it lacks of what datamix does here.
RANDOM = "draws the ratio at random"
CONTESTANTS: dict[str, tuple[Callable[[int], Batches], str, str]] = {
    "datamix": (datamix, "datamix-jax", ""),
    "datamix, output=jax": (datamix_jax, "datamix-jax", ""),
    "hand-vectorised NumPy": (numpy, "numpy", "one ratio, one batch size; no resume, no seeking"),
    "Datarax MixDataSourcesNode": (datarax, "datarax", f"{RANDOM}; rows with replacement, so there are no epochs"),
    "Datarax's tutorial, batches in turn": (
        datarax_tutorial,
        "datarax",
        "one ratio; no batch holds both sources; no state of both together",
    ),
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


# The source of Datarax 0.1.17 for files that are not loaded into memory has one leaf, and so no labels.
IN_MEMORY = ("Datarax MixDataSourcesNode", "Datarax's tutorial, batches in turn")


def check(batches: Batches, batch_size: int) -> None:
    """Raise AssertionError unless the first records have the right distribution and pixels."""
    sources, labels, levels = [], [], []
    for _, batch in zip(range(-(-WORK.num_checked // batch_size)), batches, strict=False):
        image = np.asarray(batch["image"])
        assert image.shape == (batch_size, *WORK.shape), image.shape
        assert image.dtype == np.float32, image.dtype
        source = np.asarray(batch["source_id"]).astype(int)
        sources.append(source)
        labels.append(np.asarray(batch["label"]).astype(int))
        flat = image.reshape(batch_size, -1)
        ends = np.stack([flat.min(axis=1), flat.max(axis=1)])
        levels.append((ends * STD[source] + MEAN[source]) * 255)
    source, label, pixels = np.concatenate(sources), np.concatenate(labels), np.concatenate(levels, axis=1)
    count = np.array([[np.sum((source == i) & (label == 10 * i + k)) for k in range(10)] for i in range(2)])
    assert count.sum() == len(source), "a label that belongs to no source"
    # Five standard deviations of independent draws, which vary most; batches of one source vary even more.
    share, spread = count.sum(axis=1) / len(source), 5 * np.sqrt(0.25 / (len(source) / batch_size))
    assert abs(share - 0.5).max() < min(spread, 0.49), share
    expected = np.array([np.bincount(arrays["label"], minlength=10) / WORK.num_records for arrays in data()])
    off = np.abs(count / count.sum(axis=1, keepdims=True) - expected).max()
    assert off < 5 * np.sqrt(0.1 / (len(source) / 2)), off
    lowest = (label - 10 * source) * 18 + source * 9
    assert (pixels[0] > lowest - 0.5).all(), "a pixel darker than its record"
    assert (pixels[1] < lowest + 39.5).all(), "a pixel brighter than its record"


def cpu_s() -> float:
    """CPU seconds of all threads of this process and of its workers."""
    return time.process_time() + sum(sum(worker.cpu_times()[:2]) for worker in psutil.Process().children())


def work(name: str, task: Work, batch_size: int, seconds: float, clock: Callable[[], float]) -> None:
    """Run a contestant: answer each line on standard input with the records per second of one round."""
    global WORK
    WORK = task
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    batches = iter(CONTESTANTS[name][0](batch_size))
    if name != "filling the output, nothing else":
        check(batches, batch_size)
    wait = name.endswith("output=jax") or name.startswith("Datarax")
    for _ in sys.stdin:
        begun, count = clock(), 0
        while (passed := clock() - begun) < seconds:
            for _ in range(max(1, min(1024, WORK.num_records) // batch_size)):
                batch = next(batches)
                count += batch_size
            if wait:
                batch["image"].block_until_ready()
        print(count / passed, file=answers, flush=True)


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution."""
    try:
        return f"{distribution} {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return None


def measure(
    names: list[str], task: Work, batch_size: int, seconds: float, repeats: int, clock: str
) -> dict[str, dict[str, Any]]:
    """Records per second of each contestant: the median, and all rounds."""
    processes, rows = {}, {}
    for name in names:
        distribution = CONTESTANTS[name][1]
        # TensorFlow for CPUs is another distribution.
        version = next(filter(None, map(version_of, (distribution, f"{distribution}-cpu"))), None)
        if version is None:
            print(f"{name}: {distribution} is not installed", file=sys.stderr)
            continue
        command = [sys.executable, __file__, "--worker", name, "--batch", str(batch_size), "--seconds", str(seconds)]
        command += [
            "--clock",
            clock,
            "--bytes",
            str(task.num_bytes),
            *(["--directory", str(task.directory)] if task.directory else []),
        ]
        processes[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        rows[name] = {"version": version, "lacks": CONTESTANTS[name][2], "rounds": []}
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
    """The table: thousands of records per second, and how many times as fast datamix is."""
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
        cells += ["–" if rate is None else f"{rate / 1000:,.{0 if rate >= 1e5 else 1}f}" for rate in rates]
        cells += [
            "–" if rate is None or our is None else f"{our / rate:.{1 if our / rate >= 1 else 2}f}×"
            for rate, our in zip(rates, ours, strict=True)
        ]
        lines.append("| " + " | ".join([*cells, results[sizes[0]][name]["lacks"] or "–"]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 16], help="batch sizes")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of each round")
    parser.add_argument("--repeats", type=int, default=5, help="number of rounds")
    parser.add_argument("--only", nargs="+", choices=list(CONTESTANTS), help="contestants; by default all")
    parser.add_argument("--json", type=Path, default=Path("bench_peers.json"), help="the file for the results")
    parser.add_argument("--bytes", type=int, nargs="+", default=[784], choices=list(SHAPES), help="bytes of an image")
    parser.add_argument("--where", nargs="+", default=["memory"], choices=["memory", "disk"])
    parser.add_argument(
        "--clock",
        default="wall",
        choices=["wall", "cpu"],
        help="cpu: CPU seconds, for a busy machine",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    seconds, repeats = arguments.seconds, arguments.repeats
    if arguments.worker:
        clock = cpu_s if arguments.clock == "cpu" else time.perf_counter
        work(arguments.worker, Work(arguments.bytes[0], arguments.directory), arguments.batch[0], seconds, clock)
        return
    all_results = {}
    for num_bytes in arguments.bytes:
        for where in arguments.where:
            names = [name for name in arguments.only or CONTESTANTS if where == "memory" or name not in IN_MEMORY]
            with tempfile.TemporaryDirectory() as directory:
                if where == "disk":
                    save(num_bytes, Path(directory))
                task = Work(num_bytes, Path(directory) if where == "disk" else None)
                results = {
                    size: measure(names, task, size, seconds, repeats, arguments.clock) for size in arguments.batch
                }
            all_results[f"{num_bytes} bytes, {where}"] = results
            arguments.json.write_text(
                json.dumps({"cores": os.cpu_count(), "clock": arguments.clock, "results": all_results}, indent=1) + "\n"
            )
            print(f"records of {num_bytes:,} bytes, {where}\n\n{markdown(results)}\n", flush=True)


if __name__ == "__main__":
    main()
