"""Laws of the model of accuracy: what it expects, how sure it is, and what it takes for luck."""

from __future__ import annotations

import numpy as np
import pytest

from mvnas.accuracy import AccuracyModel, Features, Groups, Validation, explained, logits

VALIDATION = Validation(1000, 1 / 10)
CHOICES = {"channels": (8, 16, 24), "kernel": (3, 5), "act": ("relu", "silu", "hardswish"), "layers": (1, 2, 3, 4)}
NOISE = 0.2  # of logits


def networks(count: int, seed: int = 0) -> tuple[Groups, np.ndarray]:
    """Features of random networks, and their true accuracies, which no feature explains wholly."""
    generator = np.random.default_rng(seed)
    places = np.column_stack([generator.integers(len(options), size=count) for options in CHOICES.values()])
    costs = np.exp(places @ (0.5, 0.1, 0.0, 0.3))[:, None] * (1.0, 3.0)
    special = 0.05 * generator.standard_normal(count)
    told = 0.4 * np.log(costs[:, 0]) + 0.3 * (places[:, 2] == 1) + special
    return Features(CHOICES).of(places, costs), 1 / (1 + np.exp(0.3 - told))


def observed(truth: np.ndarray, counts: np.ndarray, noise: float = NOISE, seed: int = 1) -> list[list[float]]:
    """Scores of so many trainings of each network."""
    generator = np.random.default_rng(seed)
    centre = np.log(truth / (1 - truth))
    return [
        (1 / (1 + np.exp(-its - noise * generator.standard_normal(n)))).tolist()
        for its, n in zip(centre, counts, strict=True)
    ]


def test_luck_is_told_from_what_is_special_to_a_network_by_repeated_trainings() -> None:
    for noise in (0.05, 0.2, 0.4):
        features, truth = networks(40)
        model = AccuracyModel.fit(features, observed(truth, np.full(40, 3), noise), VALIDATION)
        assert model.noise**0.5 == pytest.approx(noise, rel=0.25)


def test_the_expected_is_nearer_to_the_truth_than_the_observed_and_the_luckiest_is_not_preferred() -> None:
    gains, lost = [], []
    for seed in range(8):
        features, truth = networks(30, seed)
        scores = observed(truth, np.ones(30, int), seed=seed + 100)
        model = AccuracyModel.fit(features, scores, VALIDATION)
        expected = model.expect(features, np.arange(30)).mean
        seen = np.array([one for (one,) in scores])
        gains.append(np.abs(seen - truth).mean() - np.abs(expected - truth).mean())
        lost.append((truth[seen.argmax()], truth[expected.argmax()]))
    luckiest, modelled = np.mean(lost, 0)
    assert np.mean(gains) > 0.01 and modelled > luckiest


def test_intervals_of_trained_and_of_new_networks_hold_the_truth_as_often_as_they_say() -> None:
    held: dict[str, list[float]] = {"trained": [], "new": []}
    for seed in range(10):
        features, truth = networks(120, seed)
        model = AccuracyModel.fit(
            features.rows(slice(40)), observed(truth[:40], np.ones(40, int), seed=seed), VALIDATION
        )
        for name, part, places in (("trained", slice(40), np.arange(40)), ("new", slice(40, 120), None)):
            told = model.expect(features.rows(part), places)
            held[name].append(np.mean((told.low <= truth[part]) & (truth[part] <= told.high)))
    assert 0.8 < np.mean(held["trained"]) < 0.98 and 0.8 < np.mean(held["new"]) < 0.98


def test_another_training_narrows_the_interval_of_its_network() -> None:
    features, truth = networks(20)
    once, width = observed(truth, np.ones(20, int)), []
    for repeats in (0, 1, 4):
        scores = [once[0] * (1 + repeats), *once[1:]]
        told = AccuracyModel.fit(features, scores, VALIDATION).expect(features, np.arange(20))
        width.append(told.high[0] - told.low[0])
    assert width[0] > width[1] > width[2]


def test_what_a_model_has_not_seen_counts_as_if_it_had() -> None:
    features, truth = networks(40)
    scores = observed(truth, np.full(40, 2))
    whole = AccuracyModel.fit(features, scores, VALIDATION)
    shape = whole.process.theta
    part = AccuracyModel.fit(features, [its[:1] for its in scores[:1]] + scores[1:], VALIDATION, shape=shape)
    told = part.expect(features.rows([0]), np.array([0]), [scores[0][1:]])
    assert told.mean[0] == pytest.approx(whole.expect(features, np.arange(40)).mean[0], abs=0.005)
    assert told.mean[0] != pytest.approx(part.expect(features.rows([0]), np.array([0])).mean[0], abs=0.001)


def test_it_says_how_much_the_features_explain() -> None:
    features, truth = networks(40)
    assert explained(features, observed(truth, np.ones(40, int), 0.02), VALIDATION) > 0.9
    alike = [observed(np.full(40, 0.5), np.ones(40, int), seed=seed) for seed in range(4)]
    assert all(explained(features, scores, VALIDATION) < 0.1 for scores in alike)
    assert explained(features.rows(slice(5)), observed(truth[:5], np.ones(5, int)), VALIDATION) is None


def test_expected_accuracies_are_accuracies_and_alike_together_and_one_by_one() -> None:
    features, truth = networks(40)
    part, rest = features.rows(slice(30)), features.rows(slice(30, 40))
    model = AccuracyModel.fit(part, observed(truth[:30], np.ones(30, int), 0.02), VALIDATION)
    mean, deviation = model.predict(rest)
    assert np.abs(mean - truth[30:]).max() < 0.06
    together, covariance = model.joint(rest)
    assert together == pytest.approx(mean) and np.diag(covariance) ** 0.5 == pytest.approx(deviation)
    assert np.linalg.eigvalsh(covariance).min() > 0
    far = Groups(20 * rest.orders, 20 * rest.kinds, 20 * rest.costs)
    extremes = [[float(score > 0.5)] for score in truth[:30]]
    for told in (model.predict(far), AccuracyModel.fit(part, extremes, VALIDATION).predict(rest)):
        assert (told[0] >= 0).all() and (told[0] <= 1).all() and (told[1] > 0).all()


def test_one_network_alone_is_expected_to_be_near_what_was_observed() -> None:
    features, _ = networks(1)
    told = AccuracyModel.fit(features, [[0.7]], VALIDATION).expect(features, np.array([0]))
    assert told.mean[0] == pytest.approx(0.7, abs=0.03) and 0.5 < told.low[0] < 0.7 < told.high[0] < 0.85


def test_an_accuracy_is_known_to_half_an_image_at_both_ends_and_tells_nothing_below_chance() -> None:
    few, many = Validation(100, 1 / 1000), Validation(50_000, 1 / 1000)
    accuracies = np.array([0.02, 0.3, 0.995, 1.0])
    for validation, bound in ((few, np.log(199)), (many, np.log(99_999))):
        found, variance = logits(validation, accuracies, np.zeros(4))
        assert found[-1] == pytest.approx(bound) and (np.diff(found) >= 0).all()
        mirrored, same = logits(validation, 1 - accuracies[1:3], np.zeros(2))
        assert mirrored == pytest.approx(-found[1:3]) and same == pytest.approx(variance[1:3])
    assert logits(few, np.zeros(1), np.zeros(1))[0] == pytest.approx(-np.log(199))
    chance, _ = logits(many, np.array([0.0, 0.0004, 0.001, 0.0011]), np.zeros(4))
    assert chance[:2] == pytest.approx(chance[2]) == pytest.approx(-np.log(999)) and chance[3] > chance[2]
    assert logits(many, np.array([0.5]), np.array([0.01]))[1] == pytest.approx(0.16)
