"""`job=bench`: how fast a mix is, and where the time goes."""

from __future__ import annotations

import re

import pytest


@pytest.mark.slow
def test_a_bench_says_how_fast_the_mix_is_and_where_the_time_goes(call_datamix, tmp_path):
    mix = ["source=mnist+digits", "source.digits.split=train[:100]", "stop=forever", "batch.size=64"]
    resize = "operators=[{resize:{height:20,width:20}}]"
    ended = call_datamix("job=bench", *mix, resize, "bench.seconds=0.2", "hydra.run.dir=run")
    bench = ended.report["bench"]
    assert ended.report["job"] == "bench"
    assert bench["bytes_per_sample"] == 20 * 20 * 4 + 4 + 4
    assert bench["gb_per_s"] == pytest.approx(ended.report["samples_per_s"] * bench["bytes_per_sample"] / 1e9)
    assert bench["share_of_fill"] == pytest.approx(bench["gb_per_s"] / bench["fill_gb_per_s"])
    assert 0 < bench["share_of_fill"] < 1
    assert bench["path"] == "fast"
    assert "Path: fast, with calls of JAX and XLA that are not documented." in ended.out.splitlines()
    assert list(bench["ns_per_sample"]) == ["plan", "gather", "operators", "output"]
    assert bench["ns_per_sample"]["operators"] > bench["ns_per_sample"]["gather"] > 0  # a resize is no small matter
    assert f"{ended.report['samples_per_s']:,.0f} samples/s in batches of 64: " in ended.out
    assert (tmp_path / "run" / "bench.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_a_bench_takes_time(call_datamix):
    for seconds in ("0", "inf", "1e300"):
        mistake = call_datamix("job=bench", f"bench.seconds={seconds}").mistake
        assert mistake.endswith("; it is above 0, and 86,400 or less.")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["copied", "in place"])
def test_a_bench_of_records_read_on_the_host(call_datamix, where):
    mix = ["source=mnist+digits", "source.mnist.placement=host", "stop=forever", "batch.size=64"]
    mix += ["source.mnist.cache=false"] if where == "copied" else []
    ended = call_datamix("job=bench", *mix, "operators=[{resize:{height:20,width:20}}]", "bench.seconds=0.2")
    bench = ended.report["bench"]
    parts = ["plan", *(["read"] if where == "copied" else []), "gather", "operators", "output"]
    assert list(bench["ns_per_sample"]) == parts
    assert {name: source["placement"] for name, source in ended.report["sources"].items()} == {
        "mnist": "host", "digits": "device",
    }  # fmt: skip
    assert bench["fed"]["bytes_per_s"] > 0
    assert list(bench["fed"]["read_s"]) == ["mnist"]
    assert "Placement: mnist host, digits device." in ended.out.splitlines()
    if where == "copied":
        assert 0 <= bench["fed"]["window_fill"] <= 1
        assert "; last to arrive: mnist" in ended.out
    else:
        assert re.search(r"^Read on the host: [0-9.]+ GB/s, where the records lie\.$", ended.out, re.MULTILINE)
