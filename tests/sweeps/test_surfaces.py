"""Models of a metric as a function of the shares."""

from __future__ import annotations

import numpy as np
import pytest

from datamix.sweeps.surfaces import models

RATIOS = np.random.default_rng(0).dirichlet(np.ones(3), 24)
SEEN = np.ones((1, 24))


def standard(values):
    return ((values - values.mean()) / values.std())[None]


@pytest.mark.parametrize(
    ("model", "truth"),
    [
        ("constant", lambda r: np.zeros(len(r))),
        ("linear", lambda r: r @ [1, 2, 4.0]),
        ("law of its own share", lambda r: -np.exp(-7 * r[:, 1])),
        ("law of its own share", lambda r: (r[:, 1] + 0.05) ** -0.5),
        ("law of its own share, with transfer", lambda r: -np.exp(-6 * r[:, 1]) * (1 + r[:, 0] / 3)),
        ("quadratic", lambda r: r[:, 0] * r[:, 1] + 2 * r[:, 2] ** 2),
        ("log-linear mixing law", lambda r: 1 + np.exp(r @ [1, -6, -2.0])),
        ("Gaussian process", lambda r: np.sin(4 * r[:, 0]) + r[:, 1] ** 2),
    ],
)
def test_a_model_recovers_what_is_of_its_form_where_it_has_not_looked(model, truth):
    at = np.random.default_rng(1).dirichlet(np.full(3, 3.0), 50)
    values = truth(RATIOS)
    fitted = models(source=1)[model](RATIOS, standard(values) if values.std() else values[None], SEEN, None)
    expected = (truth(at) - values.mean()) / (values.std() or 1)
    np.testing.assert_allclose(fitted.predict(at[None])[0], expected, atol=0.1)
    assert 0.9 <= fitted.parameters <= 16


@pytest.mark.parametrize("model", models(source=0))
def test_rows_are_fitted_each_for_itself_and_without_what_has_no_weight(model):
    values = np.stack([standard(-np.exp(-5 * RATIOS[:, 0]))[0], standard(RATIOS[:, 0])[0]])
    weights = np.ones((2, 24))
    weights[0, 3] = 0
    both = models(source=0)[model](RATIOS, values, weights, None).predict(RATIOS[None])
    other = values.copy()
    other[0, 3] = 50.0
    np.testing.assert_allclose(
        models(source=0)[model](RATIOS, other, weights, None).predict(RATIOS[None]), both, atol=1e-5
    )
    alone = models(source=0)[model](RATIOS, values[:1], weights[:1], None).predict(RATIOS[None])
    np.testing.assert_allclose(alone[0], both[0], atol=1e-5)


def test_a_metric_of_the_whole_mix_has_no_law_of_its_own_share():
    assert set(models(source=0)) - set(models(source=None)) == {
        "law of its own share",
        "law of its own share, with transfer",
    }
