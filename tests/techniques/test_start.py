"""Laws of trained starts: candidates begin with slices of trained weights, and a study holds to them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import SHORT, make_problem, make_space, make_table, search

from mvnas.data import load
from mvnas.engines import Job, seed_of, train
from mvnas.errors import ExportError, StudyError, TrainingError
from mvnas.nn import build, example
from mvnas.ops import State
from mvnas.pretrained import recognised
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import placed
from mvnas.studies.study import Study
from mvnas.tasks import task
from mvnas.techniques import marks
from mvnas.techniques.start import begun
from mvnas.testing import technique as contract
from mvnas.testing.technique import TechniqueContract
from mvnas.testing.weights import randomise
from mvnas.training import Schedule, Training, evaluate, initialise
from mvnas.training.probe import solve_classifier
from mvnas.verification.retrain import images


def network(**stage: Any) -> Arch:
    """A small network with one elastic stage, which adds and does not."""
    rows = [
        {"block": "conv", "channels": 8, "stride": 2},
        {"block": "mbconv", "channels": 8, "stride": 2, "expand": 2, "kernel": 3, **stage},
        {"block": "classifier", "classes": 5},
    ]
    return Space.from_data({"resolution": 32, "stages": rows}, source="test").arch()


def trained(arch: Arch) -> State:
    return dict(randomise(build(arch.graph())).state_dict())


def fresh(arch: Arch) -> torch.nn.Module:
    module = build(arch.graph())
    initialise(module, 0)
    return module


@pytest.mark.parametrize("larger", [{}, {"kernel": 5}, {"expand": 3}, {"repeat": 3}, {"channels": 16}])
@torch.no_grad()
def test_a_larger_candidate_computes_what_the_network_does(larger: dict[str, int]) -> None:
    """Larger kernels have zeros around, more channels are not read by those before, more layers add nothing."""
    source, arch = network(), network(**larger)
    state, module = trained(source), fresh(arch)
    module.load_state_dict(begun(source.graph(), state, arch.graph(), module.state_dict()))
    known = build(source.graph())
    known.load_state_dict(state)
    x = example(arch.graph(), batch=2)
    torch.testing.assert_close(module.eval()(*x), known.eval()(*x), rtol=0, atol=1e-5)


def test_a_smaller_candidate_has_the_first_layers_and_channels_and_the_centre_of_kernels() -> None:
    source, arch = network(kernel=5, expand=3, repeat=2), network()
    state = trained(source)
    made = begun(source.graph(), state, arch.graph(), fresh(arch).state_dict())
    name = "stage1.0.mbconv.depthwise.conv.weight"
    assert torch.equal(made[name], state[name][:16, :, 1:4, 1:4])
    assert torch.equal(made["stage2.0.classifier.classify.weight"], state["stage2.0.classifier.classify.weight"])
    assert torch.equal(
        made["stage1.0.mbconv.expand.norm.running_var"], state["stage1.0.mbconv.expand.norm.running_var"][:16]
    )


def test_a_classifier_of_other_classes_is_fresh() -> None:
    source, arch = network(), network().with_classes(3)
    module = fresh(arch)
    made = begun(source.graph(), trained(source), arch.graph(), module.state_dict())
    name = "stage2.0.classifier.classify.weight"
    assert torch.equal(made[name], module.state_dict()[name])


def test_a_solved_classifier_tells_classes_before_any_step() -> None:
    """A fresh one is right in a tenth; features are of weights that were never trained."""
    data, arch = load("digits"), network().with_classes(10)
    module = fresh(arch)
    training = Training(module, data, task(), Schedule(), 32, 1.0, 0, arch)
    before = evaluate(module.eval(), data.val, side=32)
    solve_classifier(training, arch.graph().output.name)
    assert module.training
    assert evaluate(module.eval(), data.val, side=32) > max(0.25, before)


def test_a_network_of_another_space_is_told() -> None:
    source = Space.load("mobilenetv2_100").arch()
    arch = Space.load("mobilevit_xxs").arch().with_classes(10)
    with pytest.raises(TrainingError, match="is it of their space"):
        begun(source.graph(), build(source.graph()).state_dict(), arch.graph(), fresh(arch).state_dict())


class TestStart(TechniqueContract):
    @pytest.fixture(autouse=True, scope="class")
    def _text(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        folder = tmp_path_factory.mktemp("start")
        space = Space.from_data({"resolution": contract.SIDE, "stages": contract.STAGES}, source="test")
        arch = space.at(space.ends[0])
        save_file(trained(arch), folder / "weights.safetensors")
        (folder / "arch.json").write_text(json.dumps(arch.to_json()))
        type(self).text = f"start:weights={folder}/weights.safetensors:network={folder}/arch.json"
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space, a table by arithmetic, trained weights of the largest network, and a study that begins with them."""
    folder = tmp_path_factory.mktemp("start")
    space = Space.load(make_space(folder))
    make_table(folder / "roof", folder / "small.yaml")
    arch = space.at(space.ends[1])
    save_file(trained(arch), folder / "weights.safetensors")
    (folder / "arch.json").write_text(json.dumps(arch.to_json()))
    begin(folder, folder / "weights.safetensors", trials=2)
    return folder


def begin(folder: Path, weights: Path, *, trials: int) -> Study:
    text = f"multi_scale,start:weights={weights}:network={folder}/arch.json"
    problem = make_problem(folder / "small.yaml", folder / "roof", technique=text)
    return search(problem, study=str(folder / "s.db"), trials=trials)


def test_candidates_of_a_study_begin_with_slices(folder: Path) -> None:
    study = Study.load(str(folder / "s.db"))
    (file,) = study.files.subfolder("prepared").iterdir()
    score, setup = study.frontier().scores[0], study.setup
    assert setup.schedule["epochs"] == SHORT.epochs
    plain = Job(score.arch, SHORT, setup.factor, seed_of(score.arch, 0))
    job = replace(plain, techniques=setup.technique, artifacts=(None, str(file)))
    kept = load_file(study.files.weights(score.number))
    data = images(study)
    for one, same in ((job, True), (plain, False)):
        state = train(one, data).state
        assert all(torch.equal(state[name], kept[name]) for name in kept) == same


def test_a_study_goes_on_with_the_same_contents_by_any_name_and_with_no_others(folder: Path) -> None:
    other = folder / "other.safetensors"
    copyfile(folder / "weights.safetensors", other)
    assert len(begin(folder, other, trials=3).scores()) == 3
    state = load_file(other)
    next(iter(state.values())).add_(1)
    save_file(state, other)
    with pytest.raises(StudyError, match="must be continued as it began"):
        begin(folder, other, trials=4)


def test_lower_rates_are_the_default_where_the_user_says_none(folder: Path) -> None:
    text = f"start:weights={folder}/weights.safetensors:network={folder}/arch.json"
    for given, rate in (({}, 1e-3), ({"lr": 0.01}, 0.01)):
        problem = make_problem(folder / "small.yaml", folder / "roof", technique=text, schedule=None, **given)
        assert problem.setup.schedule["lr"] == rate


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("start", "must be told whose weights"),
        ("start:weights=none.safetensors", "must be in a file, but it cannot be read"),
        ("start:network=mobilevit_xxs", "must be told whose weights"),
    ],
)
def test_what_cannot_be_a_start_is_told(text: str, told: str) -> None:
    with pytest.raises(TrainingError, match=told):
        marks(text)


def test_a_file_tells_which_published_network_it_is_of(tmp_path: Path) -> None:
    name = "efficientnet_lite0"
    save_file(trained(placed(name).with_classes(3)), tmp_path / "ours.safetensors")
    assert recognised(tmp_path / "ours.safetensors") == name
    save_file(trained(network()), tmp_path / "none.safetensors")
    with pytest.raises(ExportError, match="are of none of .* published; name it: NAME="):
        recognised(tmp_path / "none.safetensors")
