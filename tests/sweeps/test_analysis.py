"""The best ratio of a sweep: on response surfaces whose optimum is known."""

from __future__ import annotations

import numpy as np
import pytest

from datamix.sweeps.analysis import Evidence, analyse
from datamix.sweeps.simplex import PARTS, Simplex, draw

NOISE = 0.005


def evidence(names, metrics, *, num=16, seeds=1, least=0.01, combine=lambda m: m.min(0), sign=1, noise=NOISE):
    """A sweep of a surface, `metrics(shares)`, [N, S] -> [N, K]."""
    points = draw(Simplex(num_jobs=num, min=least), names, dict.fromkeys(names, PARTS))
    shares = np.repeat(np.array(points) / PARTS, seeds, 0)
    values = metrics(shares).T
    values = values + noise * np.random.default_rng(0).normal(size=values.shape)
    own = {k: k if len(values) == len(names) else None for k in range(len(values))}
    return Evidence(
        names=names, shares=shares, metrics=dict(enumerate(values)), source_of=own, combine=combine, sign=sign
    )


def saturating(*rates):
    return lambda shares: 0.95 - 0.5 * np.exp(-shares * np.array(rates))


def test_two_sources_of_which_one_is_harder():
    # 8 a = 4 (1 - a): both sources are alike at a third.
    answer = analyse(evidence(["a", "b"], saturating(8, 4)))
    assert answer.verdict == "clear"
    assert answer.best[0] == pytest.approx(1 / 3, abs=0.02)
    assert (answer.interval[:, 0] <= [1 / 3, 2 / 3]).all()
    assert (answer.interval[:, 1] >= [1 / 3, 2 / 3]).all()
    assert answer.gain == pytest.approx(0.5 * (np.exp(-2) - np.exp(-8 / 3)), abs=NOISE)
    assert answer.gain_interval[0] <= answer.gain <= answer.gain_interval[1]
    assert answer.errors[answer.model] == min(answer.errors.values()) < 2 * NOISE
    assert answer.best.sum() == pytest.approx(1)


def test_eight_sources():
    rates = np.linspace(20, 60, 8)
    answer = analyse(evidence([f"s{i}" for i in range(8)], saturating(*rates)))
    np.testing.assert_allclose(answer.best, 1 / rates / (1 / rates).sum(), atol=0.03)
    assert NOISE / 2 < answer.noise < 2 * NOISE  # without second seeds, and though half of the ratios are corners
    assert answer.next.shape == (3, 8)
    np.testing.assert_allclose(answer.next.sum(1), 1)


def test_a_loss_is_made_small():
    def losses(shares):
        return 1 + 0.5 * np.exp(-shares * np.array([8, 4]))

    mean = analyse(evidence(["a", "b"], losses, combine=lambda m: m.mean(0), sign=-1))
    shares = np.linspace(0.01, 0.99, 981)
    expected = shares[losses(np.stack([shares, 1 - shares], 1)).mean(1).argmin()]
    assert mean.best[0] == pytest.approx(expected, abs=0.05)
    assert mean.gain < 0


def test_a_metric_of_the_whole_mix_is_fitted_itself():
    centre = np.array([0.5, 0.3, 0.2])
    answer = analyse(
        evidence(list("abc"), lambda r: 0.9 - 0.5 * ((r - centre) ** 2).sum(1, keepdims=True), combine=lambda m: m[0])
    )
    assert answer.verdict == "clear"
    np.testing.assert_allclose(answer.best, centre, atol=0.05)


def test_a_metric_of_eight_sources_has_its_best_ratio_inside():
    centre = np.array([0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05])
    bowl = evidence(list("abcdefgh"), lambda r: 0.9 - ((r - centre) ** 2).sum(1, keepdims=True), combine=lambda m: m[0])
    answer = analyse(bowl)
    assert (answer.model, answer.verdict) == ("additive quadratic", "clear")
    np.testing.assert_allclose(answer.best, centre, atol=0.05)
    assert ((answer.interval[:, 0] <= centre) & (centre <= answer.interval[:, 1])).all()


def test_a_gain_below_two_deviations_is_not_clear_though_few_ratios_leave_little_to_tell_the_noise_by():
    centre = np.array([0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05])
    depth = 1.2 * NOISE / ((1 / 8 - centre) ** 2).sum()  # equal shares are 1.2 deviations worse than the best
    bowl = evidence(
        list("abcdefgh"), lambda r: 0.9 - depth * ((r - centre) ** 2).sum(1, keepdims=True), combine=lambda m: m[0]
    )
    assert analyse(bowl).verdict == "noise"


def test_a_model_is_judged_by_ratios_among_others():
    # At a corner that is left out, no model knows what its source does for the others.
    random = np.random.default_rng(3)
    rates = np.where(random.random((8, 8)) < 0.4, 0.2, 0) * np.linspace(10, 30, 8)
    np.fill_diagonal(rates, np.linspace(10, 30, 8))
    losses = evidence(list("abcdefgh"), lambda r: 1 + 0.5 * np.exp(-(r @ rates)), combine=lambda m: m.mean(0), sign=-1)
    answer = analyse(losses)
    assert answer.model == "log-linear mixing law"
    assert answer.errors[answer.model] < NOISE < answer.errors["law of its own share"]


def test_a_metric_that_one_job_reports_is_no_obstacle():
    sweep = evidence(["a", "b"], saturating(8, 4))
    few = sweep.metrics | {2: np.where(np.arange(16) == 5, 0.7, np.nan)}
    answer = analyse(Evidence(**{**vars(sweep), "metrics": few, "source_of": {0: 0, 1: 1, 2: None}}))
    assert answer.verdict in ("flat", "noise")  # of the worst of all three, one ratio is known


@pytest.mark.parametrize(
    ("metrics", "least", "verdict"),
    [
        (lambda r: np.full(r.shape, 0.8), 0.01, "flat"),
        (saturating(8, 8), 0.01, "noise"),  # equal shares are best
        (saturating(30, 2), 0.3, "edge"),  # best at 0.1, which was not tried
    ],
)
def test_verdicts(metrics, least, verdict):
    tried = evidence(["a", "b"], metrics, seeds=2, least=least)
    answer = analyse(tried)
    assert answer.verdict == verdict
    assert len(answer.next) == 3
    for ratio in answer.next:  # its jobs would be those that there are
        assert np.abs(tried.shares - ratio).max(1).min() > 1e-4
    if verdict == "edge":
        assert answer.best[0] == pytest.approx(0.3, abs=1e-3)
        np.testing.assert_allclose(answer.next[0], [0.15, 0.85], atol=1e-3)  # half the way on
    assert answer.beyond == (verdict == "edge")
    assert answer.edges.tolist() == [verdict == "edge"] * 2
    if verdict == "flat":
        assert answer.noise == pytest.approx(NOISE / 2**0.5, rel=0.5)


@pytest.mark.parametrize("third", [0.9340, 0.9580])
def test_a_curve_is_flat_only_where_the_means_that_were_measured_differ_by_no_more_than_chance(third):
    shares = np.repeat(np.array([[a, 1 - a] for a in (0.2, 0.4, 0.6, 0.8)]), 2, 0)
    values = np.repeat([0.9590, 0.9635, third, 0.9594], 2) + 0.0046 * np.tile([1, -1], 4)
    answer = analyse(
        Evidence(
            names=["a", "b"], shares=shares, metrics={0: values}, source_of={0: None}, combine=lambda m: m[0], sign=1
        )
    )
    assert answer.noise == pytest.approx(0.0065, abs=1e-4)
    assert answer.verdict == ("noise" if third == 0.9340 else "flat")


def test_no_constant_hides_that_one_of_three_ratios_is_far_worse():
    accuracies = {0: [0.851, 0.816, 0.893, 0.869, 0.896, 0.902], 1: [0.748, 0.764, 0.716, 0.748, 0.432, 0.476]}
    shares = np.repeat([[0.25, 0.75], [0.5, 0.5], [0.75, 0.25]], 2, 0)
    answer = analyse(
        Evidence(
            names=["a", "b"],
            shares=shares,
            metrics={name: np.array(values) for name, values in accuracies.items()},
            source_of={0: 0, 1: 1},
            combine=lambda metrics: metrics.min(0),
            sign=1,
        )
    )
    assert answer.model != "constant"
    assert answer.best[0] < 0.6
    assert answer.goal(shares)[0][-1] < 0.6  # the curve of the figure passes near what was measured


def test_several_seeds_tell_the_noise():
    answer = analyse(evidence(["a", "b"], saturating(8, 4), num=8, seeds=8, combine=lambda m: m[0]))
    assert type(answer.noise) is float  # which JSON can hold
    assert answer.noise == pytest.approx(NOISE, rel=0.3)


@pytest.mark.parametrize(("num_far", "value", "spread"), [(2, 0.1, 0.001), (4, 0.0, 0.0)])
def test_the_noise_is_that_of_ratios_near_the_best(num_far, value, spread):
    # Far ones vary less; the worst accuracy of a mix that lacks a source is always 0.
    shares = [0.3, 0.5, 0.7, 0.0, 1.0, 0.02, 0.98][: 3 + num_far]
    means, spreads = [0.90, 0.91, 0.92] + [value] * num_far, [0.02] * 3 + [spread] * num_far
    values = np.repeat(means, 2) + np.repeat(spreads, 2) * np.tile([1, -1], len(means))
    answer = analyse(
        Evidence(
            names=["a", "b"], shares=np.repeat([[a, 1 - a] for a in shares], 2, 0), metrics={0: values},
            source_of={0: None}, combine=lambda m: m[0], sign=1,
        )
    )  # fmt: skip
    assert answer.seeded
    assert answer.noise == pytest.approx(0.02 * 2**0.5, rel=0.02)


def test_an_interval_of_few_ratios_is_no_narrower_than_their_seeds_allow():
    # The means lie on a line, through which every model passes; over seeds they are known to 0.01 / √3 each.
    first = np.array([0.4433, 0.4987, 0.5321])
    values = np.repeat(0.8 + 0.2 * first, 3) + 0.01 * np.tile([-1, 0, 1], 3)
    answer = analyse(
        Evidence(
            names=["a", "b"], shares=np.repeat(np.stack([first, 1 - first], 1), 3, 0), metrics={0: values},
            source_of={0: None}, combine=lambda m: m[0], sign=1,
        )
    )  # fmt: skip
    deviation = 0.01 / 3**0.5 / (first.std() * 3**0.5) * (0.5321 - 0.5)  # of the gain, by linear regression
    assert np.ptp(answer.gain_interval) > 1.64 * deviation  # some of the draws are of a constant
    low, high = answer.goal(answer.best[None])[1:, 0]
    assert high - low > 2 * 1.64 * 0.01 / 9**0.5


def test_the_same_evidence_gives_the_same_answer_and_another_seed_another_interval():
    sweep = evidence(["a", "b"], saturating(8, 4))
    one, same, other = analyse(sweep), analyse(sweep), analyse(sweep, seed=1)
    np.testing.assert_array_equal(one.interval, same.interval)
    np.testing.assert_array_equal(one.next, same.next)
    assert (one.interval != other.interval).any()
    np.testing.assert_allclose(one.best, other.best, atol=1e-3)


def test_a_job_without_a_source_counts_for_the_others():
    sweep = evidence(list("abc"), saturating(16, 8, 8))
    pair = evidence(["a", "b"], saturating(16, 8), num=8)
    shares = np.concatenate([sweep.shares, np.pad(pair.shares, ((0, 0), (0, 1)))])
    metrics = {k: np.concatenate([sweep.metrics[k], pair.metrics.get(k, np.full(8, np.nan))]) for k in range(3)}
    both = Evidence(
        names=sweep.names, shares=shares, metrics=metrics, source_of=sweep.source_of, combine=sweep.combine, sign=1
    )
    answer = analyse(both)
    np.testing.assert_allclose(answer.best, [0.2, 0.4, 0.4], atol=0.04)


@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_a_job_that_lacks_a_metric_says_nothing_of_the_goal_at_its_ratio(missing):
    sweep = evidence(["a", "b"], saturating(8, 4), num=8, seeds=2)
    lost = np.arange(16) == 5
    with_one_less = {name: np.where(lost & (name == 0), missing, values) for name, values in sweep.metrics.items()}
    answer, whole = analyse(Evidence(**{**vars(sweep), "metrics": with_one_less})), analyse(sweep)
    assert np.isfinite([answer.predicted, answer.gain, answer.noise, answer.improvement, *answer.errors.values()]).all()
    assert answer.noise == pytest.approx(whole.noise, rel=0.3)
    assert answer.verdict == whole.verdict == "clear"
    np.testing.assert_allclose(answer.best, [1 / 3, 2 / 3], atol=0.05)


def test_beyond_an_edge_the_other_shares_keep_their_proportions():
    metrics = saturating(9, 30, 30)  # best at a share of the first that was not tried
    points = np.array([[a, (1 - a) * b, (1 - a) * (1 - b)] for a in (0.2, 0.3, 0.4) for b in (0.3, 0.5, 0.7)])
    sweep = evidence(list("abc"), metrics, num=9)
    sweep = Evidence(**{**vars(sweep), "shares": points, "metrics": dict(enumerate(metrics(points).T))})
    answer = analyse(sweep)
    assert (answer.verdict, answer.beyond) == ("edge", True)
    only = analyse(sweep, num_next=1)
    assert only.promises.tolist() == [only.improvement] == [answer.promises[0]]  # not what another ratio promises
    first = answer.next[0]
    assert first[0] == pytest.approx(0.7, abs=1e-2)
    assert first[1] / first[2] == pytest.approx(answer.best[1] / answer.best[2], rel=1e-3)
    assert (answer.next[1:, 0] <= 0.4 + 1e-6).all()


def test_only_the_first_proposal_may_lie_beyond_what_was_tried():
    points = np.array([[0.2, 0.4, 0.4], [0.4, 0.3, 0.3], [0.6, 0.2, 0.2]])  # a line
    sweep = evidence(list("abc"), saturating(3, 9, 9), num=3)
    values = saturating(3, 9, 9)(points).T
    answer = analyse(Evidence(**{**vars(sweep), "shares": points, "metrics": dict(enumerate(values))}))
    assert answer.beyond
    for ratio in [answer.best, *answer.next[1:]]:
        assert ratio[1] == pytest.approx(ratio[2], abs=1e-6)
        assert 0.2 - 1e-6 <= ratio[0] <= 0.6 + 1e-6


def test_where_every_ratio_was_tried_some_are_proposed_again():
    points = np.array([[a, 1 - a] for a in (0.5, 0.5005, 0.501)])  # between which there is no other
    sweep = Evidence(
        names=["a", "b"], shares=points, metrics={0: np.full(3, 0.8)}, source_of={0: None},
        combine=lambda m: m[0], sign=1,
    )  # fmt: skip
    assert len(np.unique(analyse(sweep).next, axis=0)) == 3
