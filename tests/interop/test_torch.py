"""Batches in PyTorch's loaders, in this process and in workers of both kinds."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datamix
from datamix.errors import ConfigError, StateError
from snippets import Page

torch = pytest.importorskip("torch")

MIX = """
import sys
import datamix, numpy as np, torch
from datamix.interop.torch import dataset
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

def pipeline(*, stop="all_exhausted"):
    generator = np.random.default_rng(0)
    sources = {
        name: {"image": generator.integers(0, 256, (size, 2, 4, 3), np.uint8), "label": np.arange(size)}
        for name, size in {"a": 50, "b": 29}.items()
    }
    settings = {"shuffle_rows": True, "placement": sys.argv[3], "skip": [[1, 2], [4, 7]] if sys.argv[4:] else []}
    return datamix.mix(sources, batch_size=8, remainder="keep", stop=stop, **settings)

def seen(batches):
    return [(batch["label"].tolist(), batch["image"].tolist()) for batch in batches]
"""
WORKERS = f"""{MIX}
def loader(kind):
    context = sys.argv[1] if workers else None
    return kind(dataset(pipeline()), batch_size=None, num_workers=workers, multiprocessing_context=context)

if __name__ == "__main__":
    workers = int(sys.argv[2])
    plain, stateful = seen(loader(DataLoader)), loader(StatefulDataLoader)
    iterator = iter(stateful)
    begun = seen(next(iterator) for _ in range(5))
    state = stateful.state_dict()
    del iterator
    resumed = loader(StatefulDataLoader)
    resumed.load_state_dict(state)
    rest = seen(resumed)
    expected = seen(pipeline())
    assert plain == expected, "plain"
    assert begun + rest == expected, "resumed"
    print("same", len(plain))
"""
ELASTIC = f"""{MIX}
def loader(kind, data, workers, **settings):
    return kind(data, batch_size=None, num_workers=workers, multiprocessing_context="fork", **settings)

if __name__ == "__main__":
    count = 5
    stateful = loader(StatefulDataLoader, dataset(pipeline()), 3, snapshot_every_n_steps=2)
    iterator = iter(stateful)
    begun = seen(next(iterator) for _ in range(count))
    state = stateful.state_dict()
    del iterator
    rests = []
    for workers in (1, 2, 4):
        resumed = dataset(pipeline())
        resumed.load_state_dict(state)
        rests.append(seen(loader(DataLoader, resumed, workers)))
    other = loader(StatefulDataLoader, dataset(pipeline()), 2)
    other.load_state_dict(state)
    try:
        next(iter(other))
    except datamix.StateError as error:
        print(str(error).splitlines()[-1])
    alone = dataset(pipeline())
    alone.load_state_dict(state)
    assert [begun + rest for rest in [*rests, seen(alone)]] == [seen(pipeline())] * 4
"""
FORKED = f"""{MIX}
mix = pipeline()
mix[0]
try:
    next(iter(DataLoader(dataset(mix), batch_size=None, num_workers=1, multiprocessing_context="fork")))
except datamix.ConfigError as error:
    print(str(error).splitlines()[-1])
"""


def run(script: str, directory: Any, *arguments: object) -> str:
    path = directory / "script.py"  # a file, which spawned workers can import
    path.write_text(script)
    command = [sys.executable, "-W", "ignore", str(path), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def mix(**settings: Any) -> datamix.Pipeline:
    generator = np.random.default_rng(0)
    arrays = {"image": generator.integers(0, 256, (50, 2, 4, 3), np.uint8), "label": np.arange(50)}
    return datamix.mix({"a": arrays, "b": arrays}, **({"batch_size": 8, "stop": "forever"} | settings))


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["device", "host"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_forked_workers_take_batches_in_turn(tmp_path: Any, workers: int, placement: str) -> None:
    assert run(WORKERS, tmp_path, "fork", workers, placement) == "same 13"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_spawned_workers_take_batches_in_turn(tmp_path: Any, workers: int) -> None:
    assert run(WORKERS, tmp_path, "spawn", workers, "host") == "same 13"


@pytest.mark.slow
def test_workers_leave_steps_out_together(tmp_path: Any) -> None:
    assert run(WORKERS, tmp_path, "spawn", 2, "host", "skip") == "same 9"


@pytest.mark.slow
def test_a_worker_that_would_wait_for_ever_says_so(tmp_path: Any) -> None:
    assert 'start workers with multiprocessing_context="spawn"' in run(FORKED, tmp_path, "", "", "device")


@pytest.mark.slow
def test_a_loaders_state_goes_on_under_another_number_of_workers(tmp_path: Any) -> None:
    told = run(ELASTIC, tmp_path, "", "", "device", "skip")
    message = r"was taken in worker (\d) of 3, and this is worker \1 of 2; restore it with num_workers=3, or give the"
    assert re.search(message, told)  # whichever of the workers is first


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata asks PyTorch for every name
def test_a_loaders_state_is_one_of_its_dataset() -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    pipeline = mix(stop="all_exhausted")
    loader = stateful(datamix.interop.torch.dataset(pipeline), batch_size=None)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    other = datamix.interop.torch.dataset(pipeline)
    other.load_state_dict(loader.state_dict())
    assert next(iter(other))["label"].tolist() == pipeline[3]["label"].tolist()
    list(batches)
    other.load_state_dict(loader.state_dict())  # at its end, it begins anew
    assert next(iter(other))["label"].tolist() == pipeline[0]["label"].tolist()


@pytest.mark.parametrize("wrong", [None, [], {}, "s", 3, {"_num_yielded": 3}, {"_snapshot": {"fingerprint": {}}}])
def test_what_is_no_state_is_refused_when_it_is_loaded(wrong: Any) -> None:
    with pytest.raises(StateError, match="this is no state of datamix"):
        datamix.interop.torch.dataset(mix()).load_state_dict(wrong)


@pytest.mark.parametrize("entry", [{"worker": 3}, {"worker": [0]}, {"worker": "ab"}, {"since": "x"}, {"since": None}])
def test_a_state_with_a_damaged_entry_is_refused(entry: dict[str, Any]) -> None:
    dataset = datamix.interop.torch.dataset(mix())
    with pytest.raises(StateError, match="this is no state of datamix"):
        dataset.load_state_dict(mix().iterator().state() | entry)


def test_a_loader_gives_the_batches() -> None:
    pipeline = mix(stop="all_exhausted", remainder="keep")
    loader = torch.utils.data.DataLoader(datamix.interop.torch.dataset(pipeline), batch_size=None)
    assert len(loader) == len(pipeline) == 13
    for _ in range(2):  # each epoch of the loader begins with the first batch
        for batch, expected in zip(loader, pipeline, strict=True):
            for leaf, tensor in batch.items():
                assert tensor.numpy().dtype == expected[leaf].dtype
                np.testing.assert_array_equal(tensor.numpy(), expected[leaf])


def test_a_loader_of_a_mix_without_end_is_told_what_to_take() -> None:
    pipeline = mix(stop="forever")
    advice = r"a DataLoader takes datamix\.interop\.torch\.dataset\(pipeline\), with batch_size=None$"
    with pytest.raises(TypeError, match=advice):
        next(iter(torch.utils.data.DataLoader(pipeline)))
    batch = next(iter(torch.utils.data.DataLoader(datamix.interop.torch.dataset(pipeline), batch_size=None)))
    np.testing.assert_array_equal(batch["source_id"], pipeline[0]["source_id"])


def test_what_is_asked_for_is_made_of_batches() -> None:
    pipeline = mix()
    plain, made = (
        next(iter(datamix.interop.torch.dataset(pipeline, **settings)))
        for settings in ({}, {"channels_first": True, "label_dtype": torch.int64, "copy": True})
    )
    assert plain["image"].shape == (8, 2, 4, 3)
    assert plain["label"].dtype == torch.int32
    assert made["image"].shape == (8, 3, 2, 4)
    assert made["label"].dtype == torch.int64
    np.testing.assert_array_equal(made["image"].permute(0, 2, 3, 1), plain["image"])
    made["image"].zero_()  # memory of its own
    np.testing.assert_array_equal(plain["image"], pipeline[0]["image"])
    with pytest.raises(ConfigError, match=r"label_dtype = torch\.int64; the records have no leaf 'label'"):
        datamix.interop.torch.dataset(datamix.mix({"a": {"x": np.arange(20)}}), label_dtype=torch.int64)


def test_ranks_divide_the_rows_of_batches() -> None:
    pipeline = mix()
    ranks = [iter(datamix.interop.torch.dataset(pipeline, shard=(rank, 3))) for rank in range(3)]
    for step in range(3):
        labels = [label for rank in ranks for label in next(rank)["label"].tolist()]
        assert labels == pipeline[step]["label"].tolist()
    with pytest.raises(ConfigError, match=r"shard = \(3, 3\); the rank lies in \[0, 3\)"):
        datamix.interop.torch.dataset(pipeline, shard=(3, 3))


def test_ranks_are_those_of_torch_distributed(tmp_path: Any) -> None:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    own = datamix.interop.torch.dataset(mix())
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert own.shard == (0, 1)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_a_state_is_that_of_any_iterator() -> None:
    pipeline = mix()
    own = datamix.interop.torch.dataset(pipeline)
    assert own.state_dict()["step"] == 0
    cut = datamix.interop.torch.dataset(mix(skip=[[0, 2]], samples=80))
    assert (cut.state_dict()["step"], len(cut), len(list(cut))) == (2, 8, 8)
    batches = iter(own)
    for _ in range(3):
        next(batches)
    other = pickle.loads(pickle.dumps(datamix.interop.torch.dataset(pipeline)))
    other.load_state_dict(own.state_dict())
    assert other.state_dict() == own.state_dict()
    assert next(iter(other))["label"].tolist() == pipeline[3]["label"].tolist()
    other.load_state_dict(pipeline.iterator(start=7).state())
    assert next(iter(other))["label"].tolist() == pipeline[7]["label"].tolist()
    other.load_state_dict(own.state_dict() | {"worker": [1, 2]})
    with pytest.raises(StateError, match=r"worker 1 of 2, and this is worker 0 of 1; restore it with num_workers=2"):
        iter(other)
    other.load_state_dict(mix(seed=1).iterator(1).state())
    with pytest.raises(StateError, match="seed"):
        iter(other)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(datamix.interop, "torch", raising=False)
    monkeypatch.delitem(sys.modules, "datamix.interop.torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(datamix.InstallationError, match=r"datamix.interop.torch needs PyTorch: pip install .*torch"):
        _ = datamix.interop.torch


@pytest.mark.parametrize("wrong", ["mix", [1, 2]])
def test_what_is_no_pipeline(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"^pipeline = .*; it is a pipeline, as load and mix return it\.$"):
        datamix.interop.torch.dataset(wrong)


def test_records_are_a_map_style_dataset() -> None:
    pipeline = mix(stop="all_exhausted")
    loader = torch.utils.data.DataLoader(pipeline.records(), batch_size=8)
    for batch, expected in zip(loader, pipeline, strict=True):
        np.testing.assert_array_equal(batch["image"], expected["image"])


@pytest.mark.slow
@pytest.mark.parametrize(("library", "path"), [("lightning", "lightning_fit.py"), ("transformers", "trainer_fit.py")])
def test_trainers_of_other_libraries_take_a_mix(
    library: str, path: str, environment: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip(library)
    page = Page(Path(__file__).resolve().parents[2] / "docs" / "pages" / "how-to" / "torch.md")
    page.save(tmp_path)
    command = [sys.executable, path]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stderr
    last = float(ended.stdout.split()[-1].strip("tensor()"))
    assert last > 0.6 if library == "lightning" else last < 1.5  # an accuracy; a mean loss, which begins at 3
