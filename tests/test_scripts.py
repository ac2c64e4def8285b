"""The scripts: the tutorial says what it says it does; the checks can be run."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
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


@pytest.mark.slow
def test_the_tutorial_takes_ten_alternating_batches(printed):
    batches = [re.fullmatch(r"(\d+) \((.*)\) float32 source (\d) labels \[(.*)\]", line) for line in printed]
    batches = [match for match in batches if match]
    assert [int(match[1]) for match in batches] == list(range(10))
    assert {match[2] for match in batches} == {"16, 28, 28, 1"}
    assert [int(match[3]) for match in batches] == [0, 1] * 5
    for match in batches:
        assert {int(label) // 10 for label in match[4].split()} == {int(match[3])}
    assert "records by source: {'mnist': 80, 'fashion': 80}" in printed


@pytest.mark.slow
def test_the_tutorial_finds_any_batch_at_once(printed):
    assert printed[-2:] == ["resumed at step 5: True", "the same batch: True"]


@pytest.mark.slow
def test_the_tutorial_mixes_in_a_ratio_and_in_other_formats(printed):
    assert any(line.startswith("mnist: 70.0 % (70.0 % asked for), 700 records") for line in printed)
    assert any(line.startswith("{'image': 'float32 [28, 28, 1]', ") for line in printed)


@pytest.mark.slow
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
        [sys.executable, ROOT / "scripts" / "bench_peers.py", "--only", *names, "--batch", "64", "--bytes", "12288",
         "--where", "memory", "disk", "--seconds", "0.02", "--repeats", "1"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    all_results = json.loads((tmp_path / "bench_peers.json").read_text())["results"]
    for place, text in zip(("memory", "disk"), done.stdout.split("records of ")[1:], strict=True):
        title, _, head, _, *rows = text.strip().splitlines()
        assert title == f"12,288 bytes, {place}"
        assert head.startswith("|  | batch 64: k/s | datamix is, at 64 |")
        assert sorted(row.split("|")[1].strip() for row in rows) == sorted(names)
        assert all(all_results[f"12288 bytes, {place}"]["64"][name]["samples_per_s"] > 0 for name in names)


@pytest.mark.slow
def test_the_comparison_of_placements_prints_what_it_measures(environment, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench_fed.py", "--records", "100", "--megabytes", "1",
         "--large-megabytes", "8", "--resident-megabytes", "8", "--seconds", "0.02", "--rounds", "1"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r" +100 bytes a record: fed [\d,]+/s, .* × resident, .* × by hand on 2 threads; "
        r"of mapped files [\d,]+/s, .* × and .* ×\n"
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
        r"epochs of 1,600 records, .*: (.+)images at batch 16 to float32, .*: (.+)output='jax' at batch 16, .*: (.+)"
        r"uint8 records of 150 kB, .*: (.+)"
        r"2 shapes: first batch after .* s, first by index after another .* s\n2 sources of as many shapes, .*: (.+)",
        done.stdout,
        re.DOTALL,
    )
    results = json.loads((tmp_path / "bench_pipeline.json").read_text())
    assert all(each["ratio"] > 0 for name, each in results.items() if name != "compile")
    assert len(results) == 6
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


def test_the_sizes_of_a_simulated_mix_add_up():
    script = runpy.run_path(str(ROOT / "scripts" / "simulate_scale.py"))
    sizes = [*script["sizes_of"](1000, 10**11).values()]
    assert sum(sizes) == pytest.approx(10**11, rel=1e-6)
    assert max(sizes) < 2**32
    assert [*script["distinct"](np.array([0, 0, 0, 2]), np.array([7, 7, 5, 5]), 3)] == [2, 0, 1]


@pytest.mark.slow
def test_what_many_hosts_touch_is_counted(environment, tmp_path):
    small = "--records 1e6 --sources 20 --hosts 1 4 --batch 64 --steps 3 --tokens 4 --file-records 1000 --json out.json"
    command = [sys.executable, ROOT / "scripts" / "simulate_scale.py", *small.split()]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    results = json.loads((tmp_path / "out.json").read_text())
    alone, shared = results["table"]
    assert (alone["rows"], shared["rows"], alone["lost"]) == ([64, 64], [16, 16], None)
    assert shared["lost"] == {"hosts": 3, "step_longer": 22 / 16, "dividing_hosts": 2, "dividing_longer": 2}
    for shuffle in ("full", "blocks"):
        assert 1 <= shared[shuffle]["files_a_step"][0] <= shared[shuffle]["files_a_step"][1] <= 16
        assert shared[shuffle]["files_of_window"][1] <= alone[shuffle]["files_of_window"][1]
    assert results["plan"]["off"] < 2
    assert results["host"]["state_bytes"] > 20
    assert done.stdout.splitlines()[-3].startswith("| 4 | 16 |")


@pytest.mark.slow
def test_a_checkout_is_compared_with_itself(environment, tmp_path):
    command = [sys.executable, ROOT / "scripts" / "bench_guard.py", ROOT, ROOT, "--turns", "1", "--records", "512"]
    command += ["--batches", "2", "--leave-out", "preview", "sweep of 2 ratios", "--margin", "1000"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    names = [line[:20].strip() for line in done.stdout.splitlines()[1:]]
    assert names[0] == "import"
    assert names[-3:] == ["to the first of 16", "batches of 16", "help"]


def test_what_is_no_checkout_is_not_compared(environment, tmp_path):
    command = [sys.executable, ROOT / "scripts" / "bench_guard.py", ROOT, tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{tmp_path} is no checkout of datamix" in done.stderr


@pytest.mark.slow
def test_the_measurements_of_a_device_run_on_a_cpu(environment, tmp_path):
    command = [sys.executable, ROOT / "scripts" / "bench_device.py", "--quick", "--json", "out.json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    results = json.loads((tmp_path / "out.json").read_text())
    assert [*results["sweeps"]["2"]] == ["one after the other", "vmap", "one alone"]
    shares = {name: rate["share"] for name, rate in results["rates"].items() if "copy" not in name}
    assert {
        "resident, 256, bfloat16",
        "resident, 512, float32, in a loop",
        "resident, 256, float32, numpy",
        "fed, 512",
    } <= set(shares)
    assert all(share > 0 for share in shares.values())


@pytest.mark.slow
def test_the_measurement_of_starting_compares_with_programs_by_hand(environment, shared_data, tmp_path):
    script = ROOT / "scripts" / "bench_start.py"
    command = [sys.executable, script, "--data", shared_data / "tensorflow_datasets", "--turns", "1", "--jobs", "2"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    rows = {line[:24].strip(): float(line.split()[-1]) for line in done.stdout.splitlines()[1:9]}
    assert list(rows) == [
        "imports by hand", "job=plan", "job=preview", "job=train", "2 ratios by hand", "2 ratios", "2 ratios, vmap",
        "2 ratios, simplex",
    ]  # fmt: skip
    assert rows["imports by hand"] == rows["2 ratios by hand"] == 1
    assert rows["job=plan"] < rows["job=train"]
