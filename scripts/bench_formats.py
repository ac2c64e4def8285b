"""Measure how fast datasets in files are read, decoded and mixed, compared with other libraries: records per second.

    pip install -e '.[huggingface]' datasets torch
    python scripts/bench_formats.py photos=../shared/data/photos
    python scripts/bench_formats.py parquet=../shared/data/huggingface/mnist_small.train.parquet

Each contestant makes batches of 256 records without end, in its own process. They run in rounds, so that background
load affects all of them, and the median counts. The others are compared with the first contestant of a format. To add a
format, write a function for each contestant, and add a row to `FORMATS`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BATCH_SIZE = 256
SIZE = 64  # height and width of decoded images, in pixels
Batches = Iterator[Any]


def jpeg_torch(folder: Path) -> Batches:
    """torch's DataLoader with 2 workers; Pillow decodes and resizes."""
    import numpy as np
    import torch
    from PIL import Image

    paths = sorted(folder.glob("*/*.jpg"))
    classes = sorted({path.parent.name for path in paths})

    class Photos(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            with Image.open(paths[index]) as file:
                image = file.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(image)), classes.index(paths[index].parent.name)

    loader = torch.utils.data.DataLoader(
        Photos(), BATCH_SIZE, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True
    )
    return itertools.chain.from_iterable(itertools.repeat(loader))


def jpeg_take(folder: Path) -> Batches:
    """datamix's image_folder alone, without a mix."""
    import numpy as np

    from datamix.sources.image_folder import image_folder

    source = image_folder(path=str(folder), height=SIZE, width=SIZE, mode="RGB")
    draw = np.random.default_rng(0)
    while True:
        order = draw.permutation(source.num_records)
        for start in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
            batch = {leaf: np.empty((BATCH_SIZE, *part.shape), part.dtype) for leaf, part in source.spec.items()}
            source.take(order[start : start + BATCH_SIZE], batch)
            yield batch


def jpeg_datamix(folder: Path, placement: str = "host") -> Batches:
    """A mix of one source, whose records are read on the host as needed."""
    import datamix

    settings = {"path": folder, "height": SIZE, "width": SIZE, "mode": "RGB", "operators": "[]"}
    overrides = [f"source.folder.{key}={value}" for key, value in settings.items()]
    return datamix.load(
        "source=folder", "stop=forever", f"batch.size={BATCH_SIZE}", f"data.placement={placement}", *overrides
    ).iterator(output="numpy")


def jpeg_default(folder: Path) -> Batches:
    """The same by default: what fits into memory is decoded once, before the first batch."""
    return jpeg_datamix(folder, "auto")


def jpegs(photos: Path, directory: Path, copies: int = 100) -> Path:
    """A folder with many copies of each photo."""
    for path in photos.glob("*/*.jpg"):
        for copy in range(copies):
            to = directory / path.parent.name / f"{path.stem}-{copy:02}.jpg"
            to.parent.mkdir(exist_ok=True)
            shutil.copy(path, to)
    return directory


def parquet_huggingface(folder: Path) -> Batches:
    """datasets.interleave_datasets in torch's DataLoader with 2 workers."""
    import datasets
    import numpy as np
    import torch

    datasets.disable_progress_bars()
    read = [
        datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(folder / "cache"))
        for file in sorted(folder.glob("*.parquet"))
    ]
    mixed = datasets.interleave_datasets(
        [each.shuffle(seed=0) for each in read], probabilities=[0.5, 0.5], seed=0, stopping_strategy="all_exhausted"
    )

    def collate(records: list[dict[str, Any]]) -> tuple[Any, Any]:
        images = np.stack([np.asarray(record["image"]) for record in records])
        return torch.from_numpy(images), torch.tensor([record["label"] for record in records])

    loader = torch.utils.data.DataLoader(
        mixed, BATCH_SIZE, num_workers=2, drop_last=True, collate_fn=collate, persistent_workers=True
    )
    return itertools.chain.from_iterable(itertools.repeat(loader))


def parquet_take(folder: Path) -> Batches:
    """datamix's parquet alone, without a mix."""
    import numpy as np

    from datamix.sources.parquet import parquet

    source = parquet(path=str(folder / "*.parquet"), height=28, width=28)
    draw = np.random.default_rng(0)
    while True:
        order = draw.permutation(source.num_records)
        for start in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
            batch = {leaf: np.empty((BATCH_SIZE, *part.shape), part.dtype) for leaf, part in source.spec.items()}
            source.take(order[start : start + BATCH_SIZE], batch)
            yield batch


def parquet_datamix(folder: Path, placement: str = "host") -> Batches:
    """A mix of two sources, whose records are read on the host as needed."""
    import datamix

    a, b = sorted(folder.glob("*.parquet"))
    overrides = [f"source.my_parquet.path={a}", f"source.my_huggingface.path={b}", "labels=keep"]
    overrides += [f"source.{name}.operators=[]" for name in ("my_parquet", "my_huggingface")]
    return datamix.load(
        "source=my_parquet+my_huggingface",
        "stop=forever",
        f"batch.size={BATCH_SIZE}",
        f"data.placement={placement}",
        *overrides,
    ).iterator(output="numpy")


def parquet_default(folder: Path) -> Batches:
    """The same by default: what fits into memory is decoded once, before the first batch."""
    return parquet_datamix(folder, "auto")


def parquets(path: Path, directory: Path, copies: int = 10) -> Path:
    """Two files, each with many copies of the images of a Parquet file, in row groups of 1,000."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read()
    for name in ("a", "b"):
        pq.write_table(pa.concat_tables([table] * copies), directory / f"{name}.parquet", row_group_size=1000)
    return directory


FORMATS: dict[str, tuple[Callable[[Path, Path], Path], list[Callable[[Path], Batches]]]] = {
    "photos": (jpegs, [jpeg_torch, jpeg_take, jpeg_datamix, jpeg_default]),
    "parquet": (parquets, [parquet_huggingface, parquet_take, parquet_datamix, parquet_default]),
}
"""What makes the data of a format out of a path and a directory, and who reads what it returns."""


def rate(contestant: Callable[[Path], Batches], data: Path, seconds: float) -> float:
    """Records per second, from the third batch on."""
    batches = contestant(data)
    for _ in range(2):
        next(batches)
    start, count = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        next(batches)
        count += BATCH_SIZE
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="FORMAT=PATH", help=f"formats: {', '.join(FORMATS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--only", help=argparse.SUPPRESS)  # one contestant, in this process
    arguments = parser.parse_args()
    for name, path in (text.split("=", 1) for text in arguments.data):
        make, contestants = FORMATS[name]
        if arguments.only:
            contestant = next(each for each in contestants if each.__name__ == arguments.only)
            print(json.dumps(rate(contestant, Path(path), arguments.seconds)), flush=True)
            os._exit(0)  # worker processes of other libraries may not end by themselves
        with tempfile.TemporaryDirectory() as directory:
            data = make(Path(path), Path(directory))
            rates: dict[str, list[float]] = {each.__name__: [] for each in contestants}
            for contestant in contestants * arguments.rounds:
                command = [sys.executable, __file__, f"{name}={data}", "--only", contestant.__name__]
                done = subprocess.run([*command, "--seconds", str(arguments.seconds)], capture_output=True, text=True)
                if done.returncode:
                    print(f"{contestant.__name__}: {done.stderr.strip().splitlines()[-1]}")
                else:
                    rates[contestant.__name__].append(json.loads(done.stdout))
        base = statistics.median(rates[contestants[0].__name__] or [float("nan")])
        for contestant in contestants:
            if measured := rates[contestant.__name__]:
                median = statistics.median(measured)
                print(
                    f"{contestant.__name__:20} {median:10,.0f} records/s  {median / base:5.2f} ×  {contestant.__doc__}"
                )


if __name__ == "__main__":
    main()
