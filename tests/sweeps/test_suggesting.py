"""Suggestions: which jobs count, what is judged, how it is told."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from datamix.config.compose import prepared
from datamix.errors import ConfigError
from datamix.sweeps.results import read_results
from datamix.sweeps.suggesting import suggest, weighted

SHARES = (0.05, 0.15, 0.25, 0.3, 0.35, 0.5, 0.75)


def suggestion_of(results, metric="auto", weights=None, goal="auto"):
    return suggest(*weighted(results, metric, goal, weights or {}), 3)


@pytest.fixture
def results(leave):
    return read_results(leave(shares=SHARES))


def test_a_suggestion_as_json(results):
    suggestion = suggestion_of(results)
    plain = suggestion.json()
    assert (plain["metric"], plain["goal"], plain["jobs"]) == ("accuracy/worst", "max", 14)
    assert plain["verdict"] in ("clear", "flat", "edge", "noise")
    assert sum(plain["best"].values()) == pytest.approx(1, abs=1e-12)
    # 1 - 0.3 exp(-6 a) = 0.9 - 0.4 exp(-3 (1 - a)) near 0.2, as tests/sweeps/conftest.py has it
    assert 0.1 < plain["best"]["mnist"] < 0.3
    for name, (low, high) in plain["interval"].items():
        assert 0 <= low <= plain["best"][name] <= high <= 1
    assert plain["error"] == plain["errors"][plain["model"]]
    assert plain["gain_interval"][0] <= plain["gain"] <= plain["gain_interval"][1]
    assert len(plain["next"]) == len(plain["ratios"]) == len(plain["promises"]) == 3
    assert plain["improvement"] == max(plain["promises"])
    for setting in plain["next"]:
        shares = re.fullmatch(r"mix\.share\.mnist=(\d\.\d{4}) mix\.share\.fashion=(\d\.\d{4})", setting)
        assert float(shares[1]) + float(shares[2]) == pytest.approx(1, abs=1e-9)
    assert suggestion_of(results).json() == plain


def test_the_words_say_the_mix_the_gain_and_the_verdict(results):
    words = suggestion_of(results).words()
    assert re.match(
        r"Predicted best: mnist \d+\.\d % \(90 %: .* % to .* %\), fashion .*, with worst source's accuracy of ", words
    )
    assert "against equal shares. " in words


def test_it_says_where_nothing_promises_a_gain(results):
    suggestion = suggestion_of(results)
    promising = replace(
        suggestion, answer=replace(suggestion.answer, verdict="clear", promises=np.array([1.0, 0.5]), noise=0.01)
    )
    assert promising.head() == "To try the next ratios, to ask again, to use the best:"
    none = replace(promising, answer=replace(promising.answer, promises=np.zeros(2)))
    assert none.head() == (
        "No other ratio promises to improve worst source's accuracy by more than 0.50 %, half the noise. "
        "To try some all the same, to ask again, to use the best:"
    )
    flat = replace(promising, answer=replace(promising.answer, verdict="flat"))  # of few ratios, draws promise much
    assert flat.head().startswith("As the curve is flat, no other ratio is worth a try. To try some all the same, ")


@pytest.mark.parametrize(
    ("verdict", "kind", "interval", "sure"),
    [
        ("clear", "max", (0.001, 0.03), True),
        ("clear", "max", (-0.01, 0.03), False),
        ("clear", "min", (-0.03, 0.01), False),
        ("edge", "min", (-0.03, -0.001), True),
        ("edge", "max", (-0.01, 0.03), False),
    ],
)
def test_a_gain_whose_interval_reaches_below_0_is_not_called_sure(results, verdict, kind, interval, sure):
    suggestion = suggestion_of(results)
    answer = replace(suggestion.answer, verdict=verdict, gain_interval=interval, noise=0.01)
    words = replace(suggestion, answer=answer, goal=replace(suggestion.goal, kind=kind)).words()
    of_the_optimum = {"clear": "The optimum is clear.", "edge": ": a better one may lie beyond."}[verdict]
    of_the_gain = (
        "Most draws gain two deviations over the seeds (1.00 % each) or more over equal shares, but some lose: "
        "a gain is likely, not sure."
    )
    assert words.endswith(of_the_optimum if sure else of_the_gain)
    assert (of_the_optimum in words) == (sure or verdict == "edge")


@pytest.mark.parametrize("verdict", ["flat", "noise"])
def test_the_noise_is_called_one_over_seeds_only_where_it_was_measured_so(leave, results, verdict):
    def words(suggestion):
        return replace(suggestion, answer=replace(suggestion.answer, verdict=verdict)).words()

    one = suggestion_of([result for result in results if result.seed == 0])
    unexplained = r"than twice what the models leave unexplained \([\d.]+ %\), "
    assert re.search(unexplained + "for want of a second seed[.,]", words(one))
    assert re.search(r"than two deviations over the seeds \([\d.]+ % each\)[.,]", words(suggestion_of(results)))
    # Two sweeps of other ratios and another seed, and three ratios of which one has lost a seed.
    apart = [result for result in results if result.seed == result.job // 2 % 2]
    few = [result for result in read_results(leave("few")) if result.job != 5]
    for jobs in (apart, few):
        suggestion = suggestion_of(jobs)
        assert suggestion.seeds == ["0", "1"]
        assert re.search(unexplained + "as too few ratios have a second seed[.,]", words(suggestion))


def test_the_edges_that_are_named_are_those_of_the_verdict(results):
    suggestion = suggestion_of(results)
    answer = replace(suggestion.answer, verdict="edge", gain_interval=(0.01, 0.03), edges=np.array([False, True]))
    share = re.escape(f"{suggestion.answer.best[1] * 100:.1f} %")
    words = replace(suggestion, answer=answer).words()
    assert re.search(rf"It lies at the edge of what was tried \(fashion {share}\): a better one", words)


@pytest.mark.parametrize(
    ("metric", "weights", "name", "kind"),
    [
        ("accuracy/mean", {}, "accuracy/mean", "max"),
        ("accuracy/worst", {"mnist": 3.0, "fashion": 1.0}, "accuracy/weighted", "max"),
        ("loss/mean", {}, "loss/mean", "min"),
        ("accuracy/mnist", {}, "accuracy/mnist", "max"),
    ],
)
def test_goals(results, metric, weights, name, kind):
    plain = suggestion_of(results, metric, weights).json()
    assert (plain["metric"], plain["goal"]) == (name, kind)
    best = plain["best"]["mnist"]
    values = {
        "accuracy/mean": lambda m, f: (m + f) / 2,
        "accuracy/weighted": lambda m, f: (3 * m + f) / 4,
        "loss/mean": lambda m, f: m + f,
        "accuracy/mnist": lambda m, f: m,
    }[name]

    def reached(a):
        return values(1 - 0.3 * math.exp(-6 * a), 0.9 - 0.4 * math.exp(-3 * (1 - a)))

    assert reached(best) >= max(reached(i / 100) for i in range(5, 76)) - 0.01


@pytest.mark.parametrize(
    ("metric", "weights", "message"),
    [
        (
            "accuracy/worst",
            {"mnst": 1.0},
            "sweep.goal_weights.mnst: there is no source 'mnst' in this mix. Did",
        ),
        ("accuracy/worst", {"mnist": 0.0}, "a source needs a weight above 0"),
    ],
)
def test_weights_of_no_source_are_refused(results, metric, weights, message):
    with pytest.raises(ConfigError, match=message):
        weighted(results, metric, "auto", weights)


def test_where_there_is_none_it_says_why(leave, results):
    assert suggestion_of(results, "accuracy/wrost") == "no job of two or more sources reports accuracy/wrost"
    few = read_results(leave("few", shares=(0.2, 0.4)))
    assert suggestion_of(few).startswith("it takes 3 ratios or more, and jobs that differ in ratio and seed alone have")


def test_sources_by_themselves_say_nothing_of_mixes(results):
    def of(result, job):
        sources = {name: {"share": float(i == job % 3), "target": float(i == job % 3)} for i, name in enumerate("abc")}
        return replace(result, sources=sources)

    alone = [of(result, job) for job, result in enumerate(results)]
    assert suggestion_of(alone, "loss/mean") == "each job has trained on one source alone, and none on a mix"


def test_jobs_of_other_settings_do_not_count(leave, results):
    others = read_results(leave("others", model="cnn", better=-0.2))
    both = suggestion_of([*results, *others])
    assert both.json() == suggestion_of(results).json()
    predicted = both.predicted([*results, *others])
    assert predicted[14:] == [None] * 6
    assert predicted[0] == pytest.approx(results[0].metrics["accuracy/worst"], abs=0.03)


def test_it_says_how_many_jobs_do_not_count_and_why(leave, results):
    others = read_results(leave("others", model="cnn", better=-0.2, failing=(1,)))
    words = suggestion_of([*results, *others, results[0]]).words()
    assert words.endswith(
        " Of 21 jobs, 7 do not count: 1 is not done, 5 differ in more than ratio and seed, "
        "1 repeats a ratio and a seed."
    )
    assert "do not count" not in suggestion_of(results).words()


def test_ratios_under_a_schedule_are_not_proposed(results):
    schedule = {"schedule": [{"until": 20, "weights": {"mnist": 1}}]}
    under = [replace(each, config=each.config | {"mix": each.config["mix"] | schedule}) for each in results]
    assert suggestion_of(under).startswith("ratios under mix.schedule are not proposed")


def test_a_ratio_that_was_run_again_with_its_seed_counts_once(results):
    again = [
        replace(result, job=result.job + 100, config=result.config | {"mix": {"ratio": "x"}}) for result in results
    ]
    once, twice = suggestion_of(results).json(), suggestion_of([*results, *again]).json()
    assert twice == once


def test_jobs_of_fewer_sources_and_other_seeds_count(results):
    def third(result, share):
        sources = {name: dict(source, target=source["target"] * (1 - share)) for name, source in result.sources.items()}
        sources["digits"] = {"share": share, "target": share, "provenance": "tfds"}
        digits = 0.99 - 0.3 * math.exp(-9 * share)
        metrics = {**result.metrics, "accuracy/digits": digits}
        metrics["accuracy/worst"] = min(metrics["accuracy/worst"], digits)
        return replace(result, sources=sources, metrics=metrics)

    three = [third(result, share) for share in (0.1, 0.3, 0.5) for result in results]
    # One ratio both without the third source and with a share of 0 of it.
    three += [third(result, 0.0) for result in results[:2]]
    suggestion = suggestion_of([*three, *results])
    assert list(suggestion.names) == ["mnist", "fashion", "digits"]
    assert len(suggestion.values) == len(three)  # a goal of three sources is known of those alone
    answer = suggestion.answer
    assert np.isfinite([answer.predicted, answer.gain, answer.noise, answer.errors[answer.model]]).all()
    named = ", ".join(str(result.directory) for result in results[:8])
    assert suggestion.words().endswith(
        f" 14 jobs report no accuracy of digits, and count for the rest alone: {named} and 6 more."
    )


def test_a_job_whose_metric_is_no_number_is_named(results):
    metrics = {name: value for name, value in results[3].metrics.items() if name not in ("accuracy/mnist", "loss/mean")}
    lacking = [replace(each, metrics=metrics) if each.job == 3 else each for each in results]
    assert (
        suggestion_of(lacking)
        .words()
        .endswith(f" 1 job reports no accuracy of mnist, and counts for the rest alone: {results[3].directory}.")
    )
    assert (
        suggestion_of(lacking, "loss/mean")
        .words()
        .endswith(f" 1 job reports no mean loss, and does not count: {results[3].directory}.")
    )


def test_commands_keep_what_results_are_judged_by(results):
    following, again, _ = suggestion_of(results, "loss/mean", goal="max").commands(["s"])
    for line in (following, again):
        assert "sweep.metric=loss/mean sweep.goal=max" in line
    assert "sweep." not in suggestion_of(results).commands(["s"])[0].replace("hydra.sweep", "")


def test_the_worst_source_is_that_of_the_lowest_accuracy_under_any_goal(results):
    suggestion = suggestion_of(results, "accuracy/worst", goal="min")
    assert suggestion.values.tolist() == pytest.approx([result.metrics["accuracy/worst"] for result in results])
    losses = [
        replace(
            result,
            metrics={f"loss/{name}": 1 - result.metrics[f"accuracy/{name}"] for name in ("mnist", "fashion")}
            | {"loss/worst": 1 - result.metrics["accuracy/worst"]},
        )
        for result in results
    ]
    for goal in ("min", "max"):
        values = suggestion_of(losses, "loss/worst", goal=goal).values.tolist()
        assert values == pytest.approx([result.metrics["loss/worst"] for result in losses])


def test_the_best_ratio_of_an_experiment_is_run_once(results):
    command = ("experiment=ratio_study", *results[0].command)
    suggestion = suggestion_of([replace(each, command=command) for each in results])
    assert suggestion.commands(["s"])[-1].startswith(
        "datamix experiment=ratio_study job=train hydra.mode=RUN mix.share"
    )


def test_commands_keep_what_was_given_and_name_a_new_directory(results, tmp_path):
    more = ("source.digits.split='train[::4]'", "+vars.size=3")
    suggestion = suggestion_of([replace(each, command=(*more, *each.command)) for each in results])
    assert "datamix 'source.digits.split=train[::4]' +vars.size=3 job=train" in suggestion.commands([tmp_path])[2]
    (tmp_path / "s-next").mkdir()
    following, again, use = map(shlex.split, suggestion.commands([tmp_path / "s"]))
    assert following[:6] == [
        "datamix",
        "-m",
        "source.digits.split=train[::4]",
        "+vars.size=3",
        "job=train",
        "hydra/sweeper=simplex",
    ]
    assert re.fullmatch(r'hydra\.sweeper\.ratios=\["\d+:\d+","\d+:\d+","\d+:\d+"\]', following[6])
    assert following[7:] == ["seed=0,1", f"hydra.sweep.dir={tmp_path}/s-next2"]
    assert again == ["datamix", "job=suggest", f"sweep.dir=[{tmp_path}/s,{tmp_path}/s-next2]"]
    assert use[1:4] == ["source.digits.split=train[::4]", "+vars.size=3", "job=train"]
    assert [part.partition("=")[0] for part in use[4:]] == ["mix.share.mnist", "mix.share.fashion"]


@pytest.mark.parametrize("name", ["1", "nan", "my dir, a (1)", "it's", "a b", "$a"])
def test_commands_name_any_directory(results, tmp_path, name):
    following, again, _ = map(shlex.split, suggestion_of(results).commands([name]))
    overrides = prepared([following[-1], again[-1]])
    said = [override.value() for override in OverridesParser.create().parse_overrides(overrides[:2])]
    assert said == [f"{name}-next", [name, f"{name}-next"]]


def test_commands_keep_how_the_sweep_was_launched(results):
    launch = ("hydra/launcher=vmap", "hydra.launcher.execution=threads", "hydra.sweeper.min=0.04")
    launched = [replace(each, launch=launch) for each in results]
    following, again, use = suggest(*weighted(launched, "auto", "auto", {}), 4).commands(["s"])
    assert f" {' '.join(launch)} hydra/sweeper=simplex " in following
    assert following.endswith(" sweep.num_next=4 hydra.sweep.dir=s-next")
    assert again.endswith(" sweep.num_next=4")
    assert "hydra" not in use
    assert "sweep.num_next" not in "".join(suggestion_of(launched).commands(["s"]))


def test_no_share_below_the_least_of_the_sweep_is_proposed(results):
    def beyond(least):
        some = [replace(each, least_share=least) for each in results if each.metrics["accuracy/mnist"] > 0.9]
        answer = suggestion_of(some, "accuracy/fashion").answer
        assert answer.verdict == "edge"  # the fewer images of mnist, the better
        return answer.beyond, answer.next.min()

    assert beyond(0.0) == (True, 0.125)
    is_beyond, least_share = beyond(0.2)
    assert not is_beyond
    assert least_share >= 0.25  # the least that was tried


def test_commands_clear_the_weights_that_files_set(results):
    mix = {"weights": {"mnist": 3, "fashion": 2, "group": {"a": 1}}, "ratio": "7:3"}
    command = ("experiment=mine", "mix.weights.mnist=3", "mix.schedule=null", "seed=1")
    some = [replace(each, command=command, config=each.config | {"mix": mix}) for each in results]
    following, _, use = suggestion_of(some).commands(["s"])
    cleared = "experiment=mine mix.schedule=null mix.ratio=null mix.weights.mnist=null mix.weights.fashion=null "
    assert following.startswith(f"datamix -m {cleared}hydra/sweeper=simplex ")
    assert use.startswith(f"datamix {cleared}hydra.mode=RUN mix.share.")
    without_files = [replace(each, command=command[1:2], config=each.config | {"mix": mix}) for each in results]
    assert "mix.weights.mnist" not in "".join(suggestion_of(without_files).commands(["s"]))
