"""Laws of ranking: the sample spans the scores, orders are compared rightly, and no training is made twice or lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr
from small import SHORT, make_problem, make_space, make_table, search, write_images

from mvnas.cli import main
from mvnas.errors import StudyError
from mvnas.studies.study import Study
from mvnas.verification.ceiling import ceiling
from mvnas.verification.rank import CANDIDATES, Agreement, lengths, rank, ranking, sample
from mvnas.verification.retrain import KEY, Retrained, images, retrained, weights


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """A study of a few images with more candidates than a sample has."""
    folder = tmp_path_factory.mktemp("rank")
    space, data = make_space(folder), write_images(folder / "images", each=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        problem = make_problem(space, make_table(folder / "roof", space), "40K-params", data=str(data))
        yield search(problem, study=str(folder / "s.db"), trials=CANDIDATES + 4)


@pytest.fixture
def study(searched: Study, tmp_path: Path) -> Study:
    """A copy of that study, of which nothing was trained longer."""
    return Study.load(str(copytree(searched.files.folder, tmp_path / "copy") / "s.db"))


def front(study: Study) -> set[int]:
    return {score.number for score in study.frontier().scores}


def note(study: Study, times: int, accuracy: Callable[[float], float]) -> None:
    """Let the study know of a longer training of every candidate, whose accuracy is some function of the short one."""
    for score in study.scores():
        row = Retrained(score.number, times, accuracy(score.quality.observed[0]))
        study.record.set_user_attr(f"{KEY} {score.number} x{times}", vars(row))


def test_a_sample_holds_the_frontier_and_one_of_each_stratum_of_the_others(study: Study) -> None:
    chosen = sample(study, CANDIDATES)
    assert len({score.number for score in chosen}) == CANDIDATES
    assert front(study) <= {score.number for score in chosen}
    assert [score.quality.value for score in chosen] == sorted(score.quality.value for score in chosen)
    others = sorted((score.quality.value, score.number) for score in study.scores() if score.number not in front(study))
    places = [place for place, (_, number) in enumerate(others) if number in {score.number for score in chosen}]
    strata = np.array_split(np.arange(len(others)), CANDIDATES - len(front(study)))
    assert all(sum(place in stratum for place in places) == 1 for stratum in strata)
    assert {score.number for score in sample(study, len(front(study)))} == front(study)
    assert len(sample(study, 1000)) == len(study.scores())
    with pytest.raises(StudyError, match="the frontier is always among them"):
        sample(study, len(front(study)) - 1)


def test_a_sample_prefers_what_was_trained_before(study: Study) -> None:
    known = {score.number for score in sample(study, CANDIDATES)}
    (spared, *_) = [score.number for score in study.scores() if score.number not in known]
    study.record.set_user_attr(f"{KEY} {spared} x2", vars(Retrained(spared, 2, 0.5)))
    assert spared in {score.number for score in sample(study, CANDIDATES)}


def test_agreement_is_kendalls_and_spearmans_with_intervals_that_hold_the_truth() -> None:
    generator = np.random.default_rng(0)
    same = Agreement.of(range(12), range(12))
    against = Agreement.of(range(12), range(0, -12, -1))
    assert same and against
    assert (same.tau, same.tau_low, same.tau_high, same.rho) == pytest.approx((1, 1, 1, 1))
    assert (against.tau, against.rho_high) == pytest.approx((-1, -1))
    held = 0
    for _ in range(20):
        truth = generator.normal(size=20)
        found = Agreement.of(list(truth), list(generator.normal(size=20)))
        assert found and found.tau_low <= found.tau <= found.tau_high
        held += found.tau_low <= 0 <= found.tau_high
    assert held >= 16
    ties = [0.1, 0.2, 0.2, 0.4, 0.4, 0.7, 0.8, 0.8], [0.1, 0.1, 0.3, 0.2, 0.5, 0.5, 0.3, 0.3]
    found = Agreement.of(*ties)
    assert found and (found.tau, found.rho) == pytest.approx((kendalltau(*ties)[0], spearmanr(*ties)[0]))
    assert Agreement.of(range(7), range(7)) is None
    assert Agreement.of(range(9), [0.5] * 9) is None


@pytest.mark.parametrize(("spread", "noise"), [(0.05, 0.02), (0.02, 0.02)])
def test_a_ceiling_is_the_tau_of_two_noisy_looks_at_one_order(spread: float, noise: float) -> None:
    generator, count, images = np.random.default_rng(0), 24, 1000
    observed, found = [], []
    for _ in range(40):
        short = 0.5 + spread * np.sort(generator.normal(size=count))
        long = np.linspace(0.7, 0.9, count)
        one, other = (short + noise * generator.normal(size=count) for _ in range(2))
        late = generator.binomial(images, long) / images
        observed.append(kendalltau(one, late)[0])
        found.append(ceiling(list(one), list(other), list(late), images))
    top = np.mean([row.tau for row in found])
    assert top == pytest.approx(np.mean(observed), abs=0.07)
    assert np.mean([row.tau_low <= tau <= row.tau_high for row, tau in zip(found, observed, strict=True)]) > 0.8
    assert np.mean([row.short_noise for row in found]) == pytest.approx(noise, rel=0.1)
    assert np.mean([row.long_noise for row in found]) == pytest.approx((0.8 * 0.2 / images) ** 0.5, rel=0.1)


def test_scores_that_repeat_themselves_have_no_ceiling_below_one() -> None:
    scores, late = [i / 20 for i in range(20)], [0.5 + i / 50 for i in range(20)]
    assert ceiling(scores, scores, late, 100).tau == 1
    other = [score + 0.02 * (-1) ** i for i, score in enumerate(scores)]
    few, many, unknown = (ceiling(scores, other, late, images) for images in (10, 10_000, 0))
    assert 0 < unknown.long_noise < few.long_noise * 1.0001 and many.long_noise < few.long_noise
    assert few.tau < many.tau < 1


def test_the_best_third_is_that_of_the_longest_and_is_compared_where_it_is_large_enough(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordered = sorted(study.scores(), key=lambda score: score.quality.observed[0])
    count, third = len(ordered), -(-len(ordered) // 3)
    places = [*range(count - third), *reversed(range(count - third, count))]  # the best ones the other way round
    for score, place in zip(ordered, places, strict=True):
        study.record.set_user_attr(f"{KEY} {score.number} x2", vars(Retrained(score.number, 2, place / count)))
    assert (found := ranking(study)) and found.overall and found.top_third is None
    monkeypatch.setattr("mvnas.verification.rank.FEWEST_RANKED", third)
    assert (found := ranking(study)) and found.overall and found.top_third
    assert found.top_third.candidates == third
    assert found.top_third.tau < -0.5 < 0.5 < found.overall.tau


def test_what_is_expected_is_compared_beside_what_was_observed(study: Study) -> None:
    note(study, 2, lambda accuracy: accuracy)
    found = ranking(study)
    assert found and found.overall and found.overall.tau == 1
    assert found.modelled and found.modelled.candidates == found.overall.candidates
    for score in study.scores():
        row = Retrained(score.number, 2, score.quality.value)
        study.record.set_user_attr(f"{KEY} {score.number} x2", vars(row))
    swapped = ranking(study)
    assert swapped and swapped.overall and swapped.modelled and swapped.modelled.tau == 1
    assert swapped.overall.tau == pytest.approx(found.modelled.tau)


def test_the_ceiling_is_of_the_trainings_from_another_seed(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert study.setup.judged == len(images(study).val)
    note(study, 2, lambda accuracy: accuracy)
    assert (found := ranking(study)) and found.ceiling is None
    note(study, 1, lambda accuracy: accuracy)
    assert (found := ranking(study)) and found.ceiling and found.ceiling.tau == 1
    generator = np.random.default_rng(0)
    note(study, 1, lambda accuracy: min(1, max(0, accuracy + generator.normal(scale=0.05))))
    found = ranking(study)
    assert found and found.ceiling and found.ceiling.tau < 1
    assert found.ceiling.candidates == len(study.scores()) and 0.02 < found.ceiling.short_noise < 0.08
    assert main(["front", study.place]) == 0
    assert f"noise lets it be {found.ceiling.tau:.2f} at most" in capsys.readouterr().out
    assert main(["front", study.place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rank"]["ceiling"]["tau"] == found.ceiling.tau
    assert main(["rank", study.place, "--longer", "2"]) == 0
    assert "at most, by noise" in (told := capsys.readouterr().out) and "luck moves a score" in told


def test_the_least_length_that_orders_like_the_longest_is_enough(study: Study) -> None:
    assert ranking(study) is None
    note(study, 8, lambda accuracy: 1 - accuracy)
    note(study, 4, lambda accuracy: 0.9 - accuracy)
    note(study, 2, lambda accuracy: accuracy / 2)
    found = ranking(study)
    assert found and found.overall and found.overall.tau < 0
    assert (found.longest, found.enough) == (8, 4)
    assert list(found.lengths) == [1, 2, 4] and found.lengths[1] is None
    note(study, 8, lambda accuracy: accuracy / 2)
    assert (found := ranking(study)) and found.enough == 1
    note(study, 8, lambda accuracy: 1 - accuracy)
    note(study, 4, lambda accuracy: accuracy)
    assert (found := ranking(study)) and found.enough is None


def test_ranking_trains_what_is_missing_and_loses_one_training_at_most(study: Study) -> None:
    data = images(study)
    chosen = {score.number for score in sample(study)}

    def stop(what: str, done: int, total: int) -> None:
        assert total == len(chosen) * len(lengths(2))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rank(study, data, longer=2, progress=stop)
    before = retrained(study)
    assert len(before) == 3
    seen: list[tuple[str, int, int]] = []
    found = rank(study, data, longer=2, tell=lambda *told: seen.append(told))
    assert {what for what, *_ in seen} == {"steps", "calibrating norms", "judging images"}
    after = retrained(study)
    assert set(after) == {(number, times) for number in chosen for times in (1, 2)}
    assert {key: after[key] for key in before} == before  # their seconds too: none was trained again
    assert found.longest == 2 and found.failed == 0
    assert found.overall is None or found.overall.candidates == len(chosen)
    assert {int(path.stem.split("x")[0]) for path in weights(study, 0, 2).parent.iterdir()} == front(study) & chosen
    assert rank(study, data, longer=2) == found


def test_other_images_are_refused(study: Study) -> None:
    with pytest.raises(StudyError, match="holds others"):
        images(study, "digits")


def test_the_report_of_a_study_carries_the_rank(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", study.place, "--longer", "1"]) == 2
    note(study, 4, lambda accuracy: accuracy / 2 + 0.5)
    capsys.readouterr()
    line = f"short scores rank like 4x longer ones: tau 1.00 (1.00 .. 1.00), {len(study.scores())} candidates"
    assert main(["front", study.place]) == 0
    assert line in capsys.readouterr().out
    assert main(["front", study.place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rank"]["overall"]["tau"] == 1


def test_the_verb_tells_and_trains(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    note(study, 1, lambda accuracy: accuracy)
    assert main(["rank", study.place, "--longer", "2"]) == 0
    told = capsys.readouterr().out
    for part in (
        "scores of the study",
        "of its frontier",
        "1x again",
        f"{2 * SHORT.epochs:g} epochs",
        "least training",
    ):
        assert part in told
