"""Measure how fast a mix delivers packed tokens, as ratios to other libraries on the same documents in the same run.

    pip install -e '.[text]' grain datasets torch
    python scripts/bench_text.py [--quick] [--dir DIR]

The work: tokenise three corpora of documents of lognormal length, pack them into records of 1,024 tokens with segments
and positions, and mix them 3:1:1 without end, in batches of 32. Speed counts places for tokens ("slots"), including
padding. Each figure is the median of rounds in which all contestants take turns, so that background load affects all of
them. Libraries that are not installed are listed as left out. Tokenising is compared with calling `tokenizers` in
batches on all cores; `chunk` with only gathering the same rows from a memory map and widening them to int32.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

LENGTH, BATCH, WEIGHTS = 1024, 32, (3, 1, 1)
WORDS = [f"word{i:03d}" for i in range(1000)]


def corpora(directory: Path, num_documents: int) -> list[list[np.ndarray]]:
    """Write documents of tokens as token files, and return them."""
    draw = np.random.default_rng(0)
    sources = []
    for i in range(len(WEIGHTS)):
        sizes = np.clip(draw.lognormal(5.5 + 0.4 * i, 1.1, num_documents).astype(int), 8, 16 * LENGTH)
        documents = [draw.integers(1, 50_000, size).astype(np.uint16) for size in sizes]
        np.save(directory / f"{i}.npy", np.concatenate(documents))
        np.save(directory / f"{i}.ends.npy", np.cumsum([0, *sizes]))
        sources.append(documents)
    return sources


def datamix_batches(directory: Path, packing: str) -> Iterator[int]:
    import datamix
    from datamix.sources.text.source import Tokens

    names = [str(i) for i in range(len(WEIGHTS))]
    sources = {
        name: Tokens(
            path=str(directory / f"{name}.npy"),
            offsets=str(directory / f"{name}.ends.npy"),
            length=LENGTH,
            packing=packing,  # type: ignore[arg-type]
            cache_dir=str(directory / "cache"),
            source_name=name,
        )
        for name in names
    }
    weights = dict(zip(names, WEIGHTS, strict=True))
    pipeline = datamix.mix(sources, weights=weights, stop="forever", batch_size=BATCH)
    for batch in pipeline:
        yield batch["tokens"].size


def grain_batches(documents: list[list[np.ndarray]], how: str) -> Iterator[int]:
    import grain

    cut = [
        [document[start : start + LENGTH] for document in of_source for start in range(0, len(document), LENGTH)]
        for of_source in documents
    ]
    parts = [
        grain.MapDataset.source(each).shuffle(seed=0).repeat().map(lambda row: {"tokens": row.astype(np.int32)})
        for each in (documents if how == "concat_then_split" else cut)
    ]
    mixed = grain.MapDataset.mix(parts, weights=WEIGHTS).to_iter_dataset()
    struct = {"tokens": LENGTH}
    if how == "concat_then_split":
        packed = grain.experimental.ConcatThenSplitIterDataset(mixed, length_struct=struct)
    else:
        kind = {"first_fit": "FirstFitPackIterDataset", "best_fit": "BestFitPackIterDataset"}[how]
        packed = getattr(grain.experimental, kind)(mixed, length_struct=struct, num_packing_bins=64)
    for batch in packed.batch(BATCH):
        values = batch[0] if isinstance(batch, tuple) else batch
        yield np.asarray(values["tokens"]).size


def hugging_face_batches(documents: list[list[np.ndarray]], num_workers: int = 2) -> Iterator[int]:
    import datasets
    import torch

    datasets.disable_progress_bars()

    def grouped(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        stream = list(itertools.chain.from_iterable(batch["tokens"]))
        whole = len(stream) // LENGTH * LENGTH
        return {"tokens": [stream[start : start + LENGTH] for start in range(0, whole, LENGTH)]}

    parts = []
    for of_source in documents:
        tokens = datasets.Dataset.from_dict({"tokens": [document.tolist() for document in of_source]})
        rows = tokens.map(grouped, batched=True)
        parts.append(rows.to_iterable_dataset(num_shards=num_workers).shuffle(seed=0).repeat(None))
    probabilities = [weight / sum(WEIGHTS) for weight in WEIGHTS]
    mixed = datasets.interleave_datasets(parts, probabilities=probabilities, seed=0).with_format("torch")
    workers = {"num_workers": num_workers, "multiprocessing_context": "spawn"}  # JAX runs threads, so a fork is unsafe
    for batch in torch.utils.data.DataLoader(mixed, batch_size=BATCH, **workers):
        yield batch["tokens"].numel()


def slots_per_s(batches: Iterator[int], seconds: float) -> float:
    begun, slots = time.perf_counter(), 0
    while (passed := time.perf_counter() - begun) < seconds:
        slots += next(batches)
    return slots / passed


def rounds(contestants: dict[str, Callable[[], float]], count: int) -> dict[str, float]:
    """The median of each contestant's figures, which are taken in turns."""
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(count):
        for name, measure in contestants.items():
            figures[name].append(measure())
    return {name: statistics.median(each) for name, each in figures.items()}


def mixing(directory: Path, documents: list[list[np.ndarray]], seconds: float, count: int) -> None:
    made = {
        "datamix, best_fit": lambda: datamix_batches(directory, "best_fit"),
        "datamix, chunk": lambda: datamix_batches(directory, "chunk"),
        "Grain, first fit": lambda: grain_batches(documents, "first_fit"),
        "Grain, best fit": lambda: grain_batches(documents, "best_fit"),
        "Grain, concat then split": lambda: grain_batches(documents, "concat_then_split"),
        "Hugging Face, grouped, interleaved, 2 workers": lambda: hugging_face_batches(documents),
    }
    running = {}
    for name, make in made.items():
        try:
            running[name] = make()
            next(running[name])
        except ImportError as error:
            print(f"{name}: left out, as {error.name} is not installed")
            del running[name]
    contestants = {name: (lambda batches=each: slots_per_s(batches, seconds)) for name, each in running.items()}
    figures = rounds(contestants, count)
    for name, figure in figures.items():
        factor = figures["datamix, best_fit"] / figure
        print(f"{name:48} {figure / 1e6:9.2f} M slots/s, datamix's best_fit is {factor:6.1f} ×")


def tokenising(directory: Path, num_documents: int, count: int) -> None:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        print("tokenising: left out, as tokenizers is not installed")
        return
    from datamix.sources.text.source import Text
    from datamix.sources.text.tokenizers import train_tokenizer

    draw = np.random.default_rng(0)
    texts = [
        " ".join(draw.choice(WORDS, size)) for size in np.clip(draw.lognormal(5, 1, num_documents), 4, 4000).astype(int)
    ]
    (directory / "texts.txt").write_text("\n".join(texts))
    path = train_tokenizer(texts[:500], vocab_size=2000, path=directory / "own.json")
    library = Tokenizer.from_file(str(path))
    caches = itertools.count()

    def ours() -> float:
        begun = time.perf_counter()
        source = Text(
            path=str(directory / "texts.txt"),
            length=LENGTH,
            tokenizer=str(path),
            documents="line",
            cache_dir=str(directory / f"cache{next(caches)}"),
        )
        return source.facts.tokens / (time.perf_counter() - begun)

    def by_hand() -> float:
        begun, parts = time.perf_counter(), []
        lines = (directory / "texts.txt").read_text().splitlines()
        for start in range(0, len(lines), 1000):
            for each in library.encode_batch(lines[start : start + 1000], add_special_tokens=False):
                parts.append(np.array([*each.ids, 0], np.uint16))
        np.save(directory / "by_hand.npy", np.concatenate(parts))
        return sum(map(len, parts)) / (time.perf_counter() - begun)

    figures = rounds({"ours": ours, "by hand": by_hand}, count)
    print(
        f"tokenising: {figures['ours'] / 1e6:.2f} M tokens/s, {figures['ours'] / figures['by hand']:.2f} × calling "
        "tokenizers by hand"
    )


def chunking(directory: Path, count: int) -> None:
    from datamix.sources.text.source import Tokens

    places = {"path": str(directory / "0.npy"), "offsets": str(directory / "0.ends.npy")}
    source = Tokens(**places, length=LENGTH, cache_dir=str(directory / "cache"))  # type: ignore[arg-type]
    tokens = np.load(directory / "0.npy", mmap_mode="r")
    rows = tokens[: len(tokens) // LENGTH * LENGTH].reshape(-1, LENGTH)
    indices = np.random.default_rng(0).permutation(len(rows))[:256]
    narrow, wide = np.empty((len(indices), LENGTH), np.uint16), np.empty((len(indices), LENGTH), np.int32)

    def timed(work: Callable[[], None]) -> float:
        begun = time.perf_counter()
        for _ in range(20):
            work()
        return len(indices) * LENGTH * 20 / (time.perf_counter() - begun)

    def gather() -> None:
        np.take(rows, indices, axis=0, out=narrow, mode="clip")
        wide[...] = narrow

    out = {leaf: np.empty((len(indices), *part.shape), part.dtype) for leaf, part in source.spec.items()}
    figures = rounds(
        {
            "gather": lambda: timed(gather),
            "tokens": lambda: timed(lambda: source.take(indices, {"tokens": wide})),
            "all": lambda: timed(lambda: source.take(indices, out)),
        },
        5 * count,
    )
    print(
        f"chunk: tokens alone {figures['tokens'] / figures['gather']:.0%}, all leaves "
        f"{figures['all'] / figures['gather']:.0%} of gathering rows and widening them"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="do little work, to test that it runs")
    parser.add_argument("--dir", type=Path, help="the folder for the corpora; by default a temporary one")
    arguments = parser.parse_args()
    num_documents, seconds, count = (200, 0.1, 1) if arguments.quick else (6000, 2.0, 5)
    with tempfile.TemporaryDirectory(dir=arguments.dir) as name:
        directory = Path(name)
        documents = corpora(directory, num_documents)
        chunking(directory, count)
        tokenising(directory, num_documents, count)
        mixing(directory, documents, seconds, count)


if __name__ == "__main__":
    main()
