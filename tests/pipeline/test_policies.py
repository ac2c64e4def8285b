"""Policies: each formula against the same in NumPy, as its paper has it."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest

import datamix
from datamix import registry
from datamix.errors import RegistryError
from datamix.pipeline.policies import Ado, Doremi, LossTemperature, Odm

LOSS, COUNT = np.float32([2.0, 0.5, 1.0]), np.float32([10, 20, 0])


def test_loss_temperature():
    rule = LossTemperature(temperature=0.5, reference=(1.0, 0.0, 0.0))
    weights = np.asarray(rule.weights(rule.update(rule.init(3), LOSS, COUNT)))
    expected = np.exp(np.float32([1.0, 0.5, 1.0]) / 0.5)
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-6)


def test_odm_is_exp3_with_smoothed_rewards():
    rule, state = Odm(smoothing=0.9), Odm().init(3)
    reward, weight = np.zeros(3), np.full(3, 1 / 3)
    for update in range(1, 6):
        loss = LOSS / update
        state = rule.update(state, loss, COUNT)
        reward[:2] = (0.9 * reward + 0.1 * loss / weight)[:2]  # the third had no record
        before, now = (min(1 / 3, math.sqrt(math.log(3) / (3 * t))) for t in (update, update + 1))
        chosen = np.exp(before * reward)
        weight = (1 - 3 * now) * chosen / chosen.sum() + now
        np.testing.assert_allclose(np.asarray(rule.weights(state)), weight, rtol=1e-5)
    assert weight.sum() == pytest.approx(1)


def test_doremi_is_exponentiated_gradient_on_the_excess():
    rule = Doremi(rate=1.0, smoothing=0.1, reference=(1.0, 1.0, 1.0))
    assert rule.weighs_loss
    state = rule.update(rule.init(3), LOSS, COUNT)
    grown = np.exp([1.0, 0.0, 0.0]) / 3
    np.testing.assert_allclose(np.asarray(rule.weights(state)), 0.9 * grown / grown.sum() + 0.1 / 3, rtol=1e-6)


def test_ado_finds_the_curves_and_prefers_what_falls_fastest():
    rule, state = Ado(), Ado().init(3)
    floor, scale, exponent = np.asarray([[0.5, 1.0, 2.0], [3.0, 2.0, 0.5], [0.5, 0.25, 0.1]])
    shares = np.float32([20, 10, 10])
    preferences = []
    for update in range(1, 200):
        n = 40.0 * update
        state = rule.update(state, np.float32(floor + scale * n**-exponent), shares)
        preference = shares / 40 * np.sqrt(shares / 40) * exponent * scale * n**-exponent
        preferences.append(preference / preference.sum())
    # The smoothed shares of the last preference and of the mean of all before it.
    expected = 0.9 * np.mean([shares / 40, *preferences[:-1]], axis=0) + 0.1 * preferences[-1]
    np.testing.assert_allclose(np.asarray(rule.weights(state)), expected, atol=0.02)


def test_ado_of_one_point_or_rising_losses_keeps_the_first_shares():
    rule, state = Ado(), Ado().init(2)
    for loss in (1.0, 2.0, 3.0):
        state = rule.update(state, np.float32([loss, loss]), np.float32([30, 10]))
        np.testing.assert_allclose(np.asarray(rule.weights(state)), [0.75, 0.25], rtol=1e-6)


def test_a_name_is_taken_and_settings_of_all_policies_are_reserved():
    with registry.registered():

        @datamix.policy
        class SteepestRule:
            def init(self, num_sources):
                return jnp.zeros(num_sources)

        assert registry.lookup("policy", "steepest_rule") is SteepestRule
        with pytest.raises(RegistryError, match="'floor', which every policy has"):

            @datamix.policy
            class Floored:
                def __init__(self, *, floor: float = 0.1) -> None:
                    pass
