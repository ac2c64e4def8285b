"""The scripts: the tutorial says what it says it does; the checks can be run."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = ROOT / "scripts" / "interleaved_tutorial.py"


@pytest.fixture(scope="module")
def printed(environment, shared_data, cache_dir, tmp_path_factory):
    """What the tutorial prints."""
    places = [f"data.dir={shared_data / 'tensorflow_datasets'}", f"data.cache={cache_dir}"]
    done = subprocess.run(
        [sys.executable, TUTORIAL, *places],
        cwd=tmp_path_factory.mktemp("tutorial"), env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    # What takes its time says so.
    assert (done.returncode, re.sub(r"^Reading .*\n", "", done.stderr, flags=re.MULTILINE)) == (0, "")
    return done.stdout.splitlines()


def test_the_tutorial_takes_ten_alternating_batches(printed):
    batches = [re.fullmatch(r"(\d+) \((.*)\) float32 source (\d) labels \[(.*)\]", line) for line in printed]
    batches = [match for match in batches if match]
    assert [int(match[1]) for match in batches] == list(range(10))
    assert {match[2] for match in batches} == {"16, 28, 28, 1"}
    assert [int(match[3]) for match in batches] == [0, 1] * 5
    for match in batches:
        assert {int(label) // 10 for label in match[4].split()} == {int(match[3])}
    assert "records by source: {'mnist': 80, 'fashion': 80}" in printed


def test_the_tutorial_finds_any_batch_at_once(printed):
    assert printed[-2:] == ["resumed at step 5: True", "the same batch: True"]


def test_the_tutorial_mixes_in_a_ratio_and_in_other_formats(printed):
    assert any(line.startswith("mnist: 70.0 % (70.0 % asked for), 700 records") for line in printed)
    assert any(line.startswith("{'image': 'float32 [28, 28, 1]', ") for line in printed)


def test_the_tutorial_shows_the_pipeline(printed):
    tree = printed[: next(i for i, line in enumerate(printed) if line.startswith("0 "))]
    assert tree[0].startswith("batch")
    assert [line.split()[-1] for line in tree if line.endswith(("mnist", "fashion"))] == ["mnist", "fashion"]


def test_the_tutorial_is_the_experiment_of_its_name(call_datamix):
    import datamix

    code = TUTORIAL.read_text(encoding="utf-8")
    overrides = re.findall(r'^    "([\w.]+=.*)",$', code.partition("*more")[0], re.MULTILINE)
    assert len(overrides) == 9
    pipeline = datamix.load(*overrides)
    assert pipeline.fingerprint == call_datamix("experiment=interleaved_tutorial", "job=preview").report["fingerprint"]


@pytest.mark.slow
def test_the_comparison_checks_the_work_and_prints_a_table(environment, tmp_path):
    """Two contestants, for a moment; what others give is for those who have them installed."""
    names = ["datamix", "hand-vectorised NumPy"]
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench_peers.py", "--only", *names, "--batch", "64",
         "--seconds", "0.02", "--repeats", "1"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    head, _, *rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in done.stdout.splitlines()]
    assert head[0:2] == ["batch 64: k/s", "datamix is, at 64"]
    assert sorted(row[0] for row in rows) == sorted(names)
    results = json.loads((tmp_path / "bench_peers.json").read_text())["batch"]["64"]
    assert all(results[name]["samples_per_s"] > 0 for name in names)


@pytest.mark.slow
def test_the_comparison_of_placements_prints_what_it_measures(environment, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench_fed.py", "--records", "100", "--megabytes", "1",
         "--large-megabytes", "8", "--resident-megabytes", "8", "--seconds", "0.02", "--rounds", "1"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r" +100 bytes a record: fed [\d,]+/s, .* × resident, .* × by hand on 2 threads\n"
        r"job=train: [\d,]+ steps/s fed, .* × resident\n"
        r"a file of 8 MB, against one of 4 MB: first batch after .* s, .* ×; -?\d+ MB more memory\n"
        r"a resident file of 8 MB: .* × as much memory, at most .* ×\n",
        done.stdout,
    )
    assert json.loads((tmp_path / "bench_fed.json").read_text())["files"]["large"]["first_s"] > 0


@pytest.mark.slow
def test_the_comparison_of_batches_prints_what_it_measures(environment, tmp_path):
    command = [sys.executable, ROOT / "scripts" / "bench_pipeline.py", "--seconds", "0.02", "--rounds", "1"]
    command += ["--shapes", "2", "--megabytes", "40"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r"epochs of 1,600 records, .*: (.+)output='jax' at batch 16, .*: (.+)uint8 records of 150 kB, .*: (.+)"
        r"2 shapes: first batch after .* s, first by index after another .* s\n2 sources of as many shapes, .*: (.+)",
        done.stdout,
        re.DOTALL,
    )
    results = json.loads((tmp_path / "bench_pipeline.json").read_text())
    assert all(each["ratio"] > 0 for name, each in results.items() if name != "compile")
    assert len(results) == 5
    assert results["compile"]["first_s"] > 0


@pytest.mark.slow
def test_packed_tokens_are_compared_with_what_is_installed(environment, tmp_path):
    command = [sys.executable, ROOT / "scripts" / "bench_text.py", "--quick", "--dir", tmp_path]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    chunk, tokenising, first, *others = done.stdout.splitlines()
    assert re.fullmatch(r"chunk: tokens alone \d+%, all leaves \d+% of gathering rows and widening them", chunk)
    assert tokenising.startswith("tokenising: ")
    assert re.fullmatch(r"datamix, best_fit +[\d.]+ M slots/s, datamix's best_fit is +1\.0 ×", first)
    assert others[0].startswith("datamix, chunk ")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("spoil", ["source_id", "label", "image"])
def test_work_that_is_not_the_same_is_found_out(spoil):
    peers = runpy.run_path(str(ROOT / "scripts" / "bench_peers.py"))

    def spoiled():
        for batch in peers["numpy"](256):
            yield batch | {spoil: batch[spoil] * 0}

    with pytest.raises(AssertionError):
        peers["check"](spoiled(), 256)


@pytest.mark.parametrize("path", ["scripts/check", ".ci/run"])
def test_the_checks_can_be_run(path):
    assert os.access(ROOT / path, os.X_OK)
    assert (ROOT / path).read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
    subprocess.run(["bash", "-n", ROOT / path], check=True)


def test_the_benchmark_of_formats_reads_photos(shared_data, tmp_path):
    script = runpy.run_path(str(ROOT / "scripts" / "bench_formats.py"))
    photos = script["jpegs"](shared_data / "photos", tmp_path, copies=4)
    batch = next(script["jpeg_take"](photos))
    assert {leaf: values.shape for leaf, values in batch.items()} == {"image": (256, 64, 64, 3), "label": (256,)}
    assert script["rate"](lambda _: iter([None] * 10**6), photos, 0.0001) > 0


def test_the_benchmark_of_formats_reads_parquet(shared_data, tmp_path):
    script = runpy.run_path(str(ROOT / "scripts" / "bench_formats.py"))
    files = script["parquets"](shared_data / "huggingface" / "mnist_small.train.parquet", tmp_path, copies=1)
    batch = next(script["parquet_take"](files))
    assert {leaf: values.shape for leaf, values in batch.items()} == {"image": (256, 28, 28, 1), "label": (256,)}


@pytest.mark.slow
def test_what_many_sources_cost_is_measured(environment, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench_sources.py", "--sources", "2", "20"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith(("load, 2 ", "load, 20 ", "plan, 20 ", "report() of "))]
    offs = [float(match[1]) for line in lines if (match := re.search(r"off by ([\d.]+) at most", line))]
    assert len(offs) == 2
    assert max(offs) < 2
