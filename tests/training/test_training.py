"""Laws of training: what a step sees, that a seed fixes every bit, that it learns, how it fails."""

from __future__ import annotations

import json
import pickle
import random
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from small import make_space, write_images
from torch import nn
from torch.nn.functional import interpolate

from mvnas.backends import backend
from mvnas.data import Data, Split, load
from mvnas.engines import Job, train
from mvnas.errors import TrainingError
from mvnas.export import Pictures
from mvnas.nn import Affine, Attend, Position, Spread, build, deploy
from mvnas.ops import Map, State
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.system.machine import THREADS
from mvnas.tasks._images import random_crops, resampling, whole
from mvnas.techniques import techniques
from mvnas.techniques.multi_scale import scales
from mvnas.training import (
    Sampler,
    Schedule,
    evaluate,
    evaluate_file,
    factor_for,
    fit,
    initialise,
    trained_size,
)
from mvnas.training.fit import CALIBRATION
from mvnas.training.weights import Average, calibrate, groups

CLASSES = tuple("0123456789")
SHORT = Schedule(epochs=2, batch=32, lr=1e-2, crop=0.7)


def tiny(seed: int = 0, classes: int = 10) -> nn.Sequential:
    """A network with each kind of part that training treats apart: norm, dropout, bias."""
    module = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU()),
        *(nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.SiLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LayerNorm(128), nn.Dropout(0.1), nn.Linear(128, classes)),
    )
    initialise(module, seed)
    return module


def split(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(images, labels.astype(np.int64))


@pytest.fixture(scope="module")
def digits() -> Data:
    """800 and 400 real digits, 16 px; those for training are read-only, like those of a mapped file."""
    grey, labels = load_digits(return_X_y=True)
    images = np.repeat((grey * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8), 3, axis=1).repeat(2, 2).repeat(2, 3)
    train, val, test = (split(images[its], labels[its]) for its in (slice(800), slice(800, 1200), slice(1200, 1300)))
    train.images.flags.writeable = False
    return Data("", CLASSES, train, val, test, flip=False)


def trained(data, seed=0, schedule=SHORT, module=None, **kw):
    kw = {"techniques": techniques(), **kw}
    return fit(module or tiny(seed), data, resolution=128, factor=1 / 8, schedule=schedule, seed=seed, **kw)


@pytest.mark.parametrize(
    ("batch", "images"),
    [
        (128, (327, 227, 128, 101, 81)),
        (32, (81, 56, 32, 25, 20)),
        (1024, (2621, 1820, 1024, 809, 655)),
        (1, (2, 1, 1, 1, 1)),
    ],
)
def test_scales_are_those_of_the_released_sampler(batch, images):
    assert scales(256, batch) == tuple(zip((160, 192, 256, 288, 320), images, strict=True))


@pytest.mark.parametrize("base", range(32, 513, 32))
def test_scales_hold_the_base_and_about_the_same_pixels(base):
    pairs = dict(scales(base, 64))
    assert pairs[base] == 64
    assert all(
        size % 32 == 0 and images * size**2 == pytest.approx(64 * base**2, rel=0.1) for size, images in pairs.items()
    )


def test_every_epoch_shows_every_image_and_completes_its_last_step_from_the_first_ones():
    sampler = Sampler(1000, scales(256, 32), epochs=1, seed=3)
    steps = list(sampler)
    shown = np.concatenate([indices for _, indices in steps])
    assert len(sampler) == len(steps)
    assert sorted(shown[:1000]) == list(range(1000))
    assert list(shown[1000:]) == list(shown[: len(shown) - 1000])
    assert all(len(indices) == dict(scales(256, 32))[size] for size, indices in steps)


@pytest.mark.parametrize(("epochs", "wanted"), [(0.25, 250), (1.5, 1500), (2, 2000), (1e-9, 1)])
def test_length_is_the_fewest_steps_that_show_the_images_wanted(epochs, wanted):
    counts = [len(indices) for _, indices in Sampler(1000, scales(256, 8), epochs=epochs, seed=0)]
    assert wanted <= sum(counts) < wanted + int(np.ceil(epochs)) * max(counts)


def test_sizes_are_drawn_uniformly_and_epochs_differ():
    sampler = Sampler(5000, scales(256, 4), epochs=4, seed=0)
    steps = list(sampler)
    drawn = Counter(size for size, _ in steps)
    assert all(0.15 < drawn[size] / len(steps) < 0.25 for size, _ in sampler.sizes)
    orders = np.concatenate([indices for _, indices in Sampler(64, ((256, 64),), epochs=4, seed=0)])
    assert len({tuple(order) for order in orders.reshape(4, 64)}) == 4


def test_steps_depend_on_the_seed_alone():
    def steps(seed: int) -> list[tuple[int, list[int]]]:
        return [(size, list(indices)) for size, indices in Sampler(90, scales(256, 8), epochs=2, seed=seed)]

    random.seed(1)
    state = random.getstate()
    first = steps(7)
    assert random.getstate() == state
    random.seed(2)
    assert steps(7) == first != steps(8)


def test_a_step_shows_no_more_images_than_there_are():
    assert {len(indices) for _, indices in Sampler(5, scales(256, 128), epochs=3, seed=0)} == {5}


def test_factor_scales_sizes_down_to_a_floor():
    assert (factor_for(256), factor_for(1024), factor_for(64)) == (1.0, 1.0, 0.25)
    assert [trained_size(size, 1 / 8) for size, _ in scales(256)] == [20, 24, 32, 36, 40]
    assert trained_size(64, 1 / 8) == 16


def test_rate_warms_up_and_falls_to_a_tenth():
    rates = [Schedule(lr=1.0, warmup=0.2).rate(step, 50) for step in range(50)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == max(rates) == pytest.approx(1)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.1 < rates[-1] < 0.11
    assert Schedule(lr=1.0, warmup=0).rate(0, 1) == 1


def test_a_schedule_survives_json_and_says_what_is_wrong():
    assert Schedule(**json.loads(json.dumps(asdict(SHORT)))) == SHORT
    for wrong in ({"epochs": 0}, {"lr": float("nan")}, {"crop": 1.5}, {"ema": -1}, {"epochs": float("inf")}):
        with pytest.raises(TrainingError, match=f"{next(iter(wrong))} of a schedule must be .*, but is"):
            Schedule(**wrong)


@pytest.mark.parametrize("side", [7, 16, 40])
def test_resampling_is_torch_s_anti_aliased_resize(side):
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    weights = resampling(torch.zeros(4), torch.ones(4), side, images)[:, None]
    full = interpolate(images / 255, size=(side, side), mode="bilinear", antialias=True)
    assert torch.allclose(weights @ (images / 255) @ weights.mT, full, atol=1e-6)
    assert torch.allclose(whole(images, side), full)


def test_crops_show_a_part_of_their_own_image_in_its_range():
    ramp = torch.arange(0, 256, 8, dtype=torch.uint8).repeat(500, 3, 32, 1)
    ramp[250:] = ramp[250:].mT.clone()
    crops = random_crops(ramp, 24, area=0.25, flip=True, generator=torch.Generator().manual_seed(0))
    assert crops.shape == (500, 3, 24, 24)
    assert 0 <= crops.min() < 0.01
    assert 0.96 < crops.max() <= 1
    across, down = crops[:250], crops[250:]
    assert torch.allclose(across.std(2), torch.zeros(()), atol=1e-5)  # columns stay columns, rows stay rows
    assert torch.allclose(down.std(3), torch.zeros(()), atol=1e-5)
    mirrored = (across[:, 0, 0, -1] < across[:, 0, 0, 0]).float().mean()
    assert 0.4 < mirrored < 0.6
    assert (down[:, 0, -1, 0] > down[:, 0, 0, 0]).all()
    extent = (across[:, 0, 0, -1] - across[:, 0, 0, 0]).abs() * 32 / 31 * 24 / 23
    assert 0.25**0.5 * 0.75**0.5 - 0.05 < extent.min() < extent.mean() - 0.2


def test_crops_without_flip_are_never_mirrored():
    ramp = torch.arange(0, 256, 8, dtype=torch.uint8).expand(200, 3, 32, 32)
    crops = random_crops(ramp, 16, area=0.3, flip=False, generator=torch.Generator().manual_seed(0))
    assert (crops[:, 0, 0, -1] > crops[:, 0, 0, 0]).all()


def test_initial_weights_follow_the_recipe_and_the_seed():
    module, again, other = tiny(0), tiny(0), tiny(1)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))
    assert not torch.equal(module[0].weight, other[0].weight)
    assert module[3].weight.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05)
    assert module[-1].weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert module[-1].bias.abs().max() == 0
    assert module[1].weight.min() == module[1].weight.max() == 1


def test_only_weights_decay():
    module = tiny()
    decayed, free = groups(module, 0.01)
    assert [len(decayed["params"]), len(free["params"])] == [3, 7]
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.01, 0)
    assert all(value.ndim == 1 for value in free["params"])


FREE = {  # published network -> its tensors of several axes that are no weights of linear layers
    "fastervit_0": 6,
    "edgevit_xxs": 8,
    "efficientformer_l1": 15,
    "tiny_vit_5m_224": 10,
    "efficientformerv2_s0": 5,
    "efficientvit_m0": 24,
    "elasticvit_t1": 4,
    "hiera_tiny_224": 1,
    "mobilevitv2_050": 0,
    "fastvit_t8": 0,
    "efficientvit_b0": 0,
}


@pytest.mark.parametrize("name", FREE)
def test_only_what_inputs_are_multiplied_and_summed_by_decays(name):
    with torch.device("meta"):
        module = build(Space.load(name).arch().graph())
    names = {id(value): key for key, value in module.named_parameters()}
    decayed, free = ({names[id(value)] for value in group["params"]} for group in groups(module, 0.01))
    assert decayed | free == set(names.values()) and not decayed & free
    assert sum(module.get_parameter(key).ndim > 1 for key in free) == FREE[name]
    for key in decayed:
        part = module.get_submodule(key.rpartition(".")[0])
        assert key.endswith(".weight") and isinstance(part, nn.Conv2d | nn.Conv1d | nn.Linear | Spread)
    for key, value in module.named_parameters():
        owner = module.get_submodule(key.rpartition(".")[0])
        assert key not in free or value.ndim < 2 or isinstance(owner, Affine | Attend | Position)


def test_a_module_of_its_own_kind_says_what_decays():
    module = nn.Sequential(Spread(4, 9), nn.PReLU(4))
    decayed, free = groups(module, 0.01)
    assert [tuple(value.shape) for value in decayed["params"]] == [(9, 4)]
    assert [tuple(value.shape) for value in free["params"]] == [(4,), (4,)]


def test_average_forgets_the_start_and_equals_the_recurrence():
    module = nn.Linear(3, 2)
    average = Average(module, 0.5)
    expected = module.weight.detach().clone()
    for step in range(1, 30):
        nn.init.normal_(module.weight)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * module.weight.detach()
    average.store()
    assert torch.allclose(module.weight, expected, atol=1e-6)


def test_calibrated_norms_hold_the_statistics_of_what_they_see():
    module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(3))
    batches = torch.randn(6, 50, 3, 4, 4) * 3 + 5
    calibrate(module, batches)
    assert torch.allclose(module[1].running_mean, batches.mean((0, 1, 3, 4)), atol=1e-4)
    assert torch.allclose(module[1].running_var, batches.transpose(1, 2).flatten(2).var(2).mean(0), atol=1e-3)
    assert not any(part.training for part in module.modules())
    assert module[1].momentum == 0.1


def test_training_learns_and_the_same_seed_gives_the_same_bits(digits):
    seen, module = [], tiny()
    before = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    first = trained(digits, module=module, progress=lambda *step: seen.append(step))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), torch.get_num_threads()) == before[1:]
    torch.rand(5)
    second, other = trained(digits), trained(digits, seed=1)
    assert first.quality > 0.5
    assert first.quality == second.quality
    assert first.state.keys() == second.state.keys() == tiny().state_dict().keys()
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)
    assert not torch.equal(first.state["0.weight"], other.state["0.weight"])
    assert [step for step, _, _ in seen] == list(range(1, first.steps + 1))
    assert {steps for _, steps, _ in seen} == {first.steps}
    assert first.images >= 1600
    assert seen[-1][2] < seen[0][2]


def test_the_state_is_what_was_judged(digits):
    module = tiny()
    result = trained(digits, module=module)
    fresh = tiny(5)
    fresh.load_state_dict(result.state)
    assert evaluate(fresh, digits.val, side=16) == result.quality
    assert all(value.is_contiguous() and value.device.type == "cpu" for value in result.state.values())
    assert all(torch.equal(value, result.state[name]) for name, value in module.state_dict().items())
    module[0].weight.data.zero_()
    assert result.state["0.weight"].abs().sum() > 0


def test_the_result_is_averaged_and_its_norms_fit_the_deployed_size(digits):
    few = replace(digits, train=split(digits.train.images[:200], digits.train.targets[:200]))
    losses: dict[float, list[float]] = {0.0: [], 0.9995: []}
    modules = {ema: tiny() for ema in losses}
    for ema, module in modules.items():
        schedule = replace(SHORT, batch=200, ema=ema)
        trained(few, module=module, schedule=schedule, progress=lambda *step, seen=losses[ema]: seen.append(step[2]))
    averaged, last = modules[0.9995], modules[0.0]
    assert losses[0.9995] == losses[0.0]
    assert not torch.equal(averaged[0].weight, last[0].weight)
    maps = averaged[0](whole(torch.tensor(few.train.images), 16))
    assert torch.allclose(averaged[1].running_mean, maps.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(averaged[1].running_var, maps.transpose(0, 1).flatten(1).var(1), atol=1e-4)


def test_averaged_weights_are_no_worse_than_the_last_ones(digits):
    averaged, last = (trained(digits, schedule=replace(SHORT, epochs=3, ema=ema)) for ema in (0.9995, 0.0))
    assert averaged.quality > last.quality - 0.03


def test_evaluation_counts(digits):
    module = tiny(3).eval()
    part = split(digits.val.images[:37], digits.val.targets[:37])
    with torch.no_grad():
        logits = [
            module(interpolate(torch.tensor(x)[None] / 255, (24, 24), mode="bilinear", antialias=True))
            for x in part.images
        ]
    right = sum(int(row.argmax()) == label for row, label in zip(logits, part.targets, strict=True))
    assert evaluate(module, part, side=24, batch=10) == right / 37


def test_networks_are_judged_in_float32_where_they_are_trained_in_less(digits, monkeypatch):
    """As on CUDA: bfloat16 in the steps alone, neither where norms are calibrated nor where images are judged."""
    monkeypatch.setattr("mvnas.training.loop.mixed", lambda device: torch.autocast("cpu", torch.bfloat16))
    module, seen = tiny(), set()
    module[0].register_forward_hook(lambda part, inputs, y: seen.add((part.training, y.dtype)))
    result = trained(digits, schedule=replace(SHORT, epochs=0.1), module=module)
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}
    with torch.autocast("cpu", torch.bfloat16):
        assert evaluate(module, digits.val, side=16) == result.quality
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}


def test_a_loss_that_is_not_a_number_names_its_step(digits):
    module = tiny()
    nn.init.constant_(module[-1].bias, float("nan"))
    with pytest.raises(TrainingError, match=r"the loss must be finite, but is nan at step 1 of \d+"):
        trained(digits, module=module)
    with pytest.raises(TrainingError, match="outputs must be finite"):
        evaluate(module, digits.val, side=16)


class Hungry(nn.Module):
    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.weight, self.error = nn.Parameter(torch.ones(1)), error

    def forward(self, x):
        if self.error:
            raise self.error
        return torch.empty(2**55)


@pytest.mark.parametrize("error", [None, torch.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError()])
def test_exhausted_memory_is_a_training_error(digits, error):
    with pytest.raises(TrainingError, match="out of memory"):
        trained(digits, module=Hungry(error))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("shapes differ"), ValueError("x")])
def test_other_failures_pass_through_and_leave_the_generators(digits, error):
    state = torch.get_rng_state()
    with pytest.raises(type(error)) as caught:
        trained(digits, module=Hungry(error))
    assert caught.value is error
    assert torch.equal(torch.get_rng_state(), state)


def test_a_training_that_rested_ends_as_one_that_did_not() -> None:
    data, schedule = load("digits"), Schedule(epochs=0.3, batch=64)
    arch = Space.load("mobilevit_xxs").arch().with_classes(10)
    whole = train(Job(arch, schedule, 0.125, seed=3), data)
    part = train(Job(arch, schedule, 0.125, seed=3, until=0.5), data)
    assert part.checkpoint and not whole.checkpoint
    rest = pickle.loads(pickle.dumps(part.checkpoint))
    rested = train(Job(arch, schedule, 0.125, seed=3, begin=rest), data)
    assert rested.quality == whole.quality
    assert all(torch.equal(rested.state[name], weight) for name, weight in whole.state.items())


def test_clipping_shortens_gradients_and_is_off_by_default(digits):
    few = replace(SHORT, epochs=0.2)
    plain, off, long, short = (trained(digits, schedule=replace(few, **clip)) for clip in
                               ({}, {"clip": 0.0}, {"clip": 1e9}, {"clip": 1e-15}))  # fmt: skip
    for other in (off, long):
        assert all(torch.equal(value, other.state[name]) for name, value in plain.state.items())
    fresh = {name: value.detach() for name, value in tiny().named_parameters()}

    def moved(result):  # of gradients so short AdamW makes none of its usual steps
        return max(float((result.state[name] - value).abs().max()) for name, value in fresh.items() if value.ndim > 1)

    assert moved(short) < moved(plain) / 100


@pytest.mark.parametrize("error", [MemoryError("no more"), RuntimeError("can't allocate memory: x" + "\nframe" * 500)])
def test_exhausted_memory_is_told_in_a_sentence(error, digits):
    def stop(*step):
        raise error

    with pytest.raises(TrainingError, match="search with a smaller --batch$") as told:
        trained(digits, progress=stop)
    assert len(str(told.value)) <= 300 and "\n" not in str(told.value)


def test_whatever_takes_long_is_told_of(digits) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}
    trained(
        digits, schedule=replace(SHORT, epochs=0.1), tell=lambda what, *done: seen.setdefault(what, []).append(done)
    )
    assert list(seen) == ["calibrating norms", "judging images"]
    assert [rows[-1] for rows in seen.values()] == [(CALIBRATION, CALIBRATION), (400, 400)]
    assert all(len(rows) >= 4 and rows == sorted(rows) for rows in seen.values())


def test_reading_of_images_is_told_of(tmp_path: Path) -> None:
    write_images(tmp_path / "images", classes=2, each=10)
    seen: list[tuple[str, int, int]] = []
    for _ in range(2):
        load(str(tmp_path / "images"), cache=tmp_path / "cache", tell=lambda *told: seen.append(told))
    assert seen[-2:] == [("reading train images", 19, 20), ("reading train images", 20, 20)]
    assert len(seen) == 80  # a survey, and the pixels of what is trained on and of what is held out twice; once


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Arch:
    """A network in 8 bits."""
    space = Space.load(make_space(tmp_path_factory.mktemp("space"))).with_classes(10)
    return replace(space.sample(lambda name, options: options[-1]), precision="int8")


def test_judging_in_8_bits_is_told_of_and_the_same_on_any_number_of_threads(coarse: Arch) -> None:
    data = load("digits")
    data = replace(data, val=Split(data.val.images[:100], data.val.targets[:100]))
    module = build(coarse.graph())
    initialise(module, 0)
    seen: list[tuple[str, int, int]] = []
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = evaluate_file(coarse, module.state_dict(), data, 32, tell=lambda *told: seen.append(told))
    finally:
        torch.set_num_threads(before)
    assert found == one_by_one(coarse, module.state_dict(), data, 32)
    judged = [done for what, *done in seen if what == "judging images at int8"]
    assert judged == [[64, 100], [100, 100]]


def one_by_one(arch: Arch, state: State, data: Data, side: int) -> float:
    """Accuracy of a network's file, image by image."""
    shipped, folded = deploy(arch.graph().on(Map(3, side, side)), state)
    runtime = backend("tflite", precision=arch.precision, images=Pictures.of(data, side).ranges)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"network{runtime.suffix}"
        runtime.export(shipped, path, folded)
        images = [whole(torch.from_numpy(image[None]), side).numpy() for image in data.val.images]
        run = runtime.runner(path)
        named = [int(run([image])[0].argmax()) for image in images]
    return float((np.array(named) == data.val.targets).mean())


def test_a_training_takes_no_more_threads_than_its_user_says(coarse: Arch, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv(THREADS, "2")
    torch.set_num_threads(4)
    seen: list[int] = []
    data = load("digits")
    data = replace(data, val=Split(data.val.images[:10], data.val.targets[:10]))
    try:
        train(
            Job(replace(coarse, precision="float32"), Schedule(epochs=0.01, batch=8), 0.125, seed=0),
            data,
            progress=lambda *step: seen.append(torch.get_num_threads()),
        )
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {2}
