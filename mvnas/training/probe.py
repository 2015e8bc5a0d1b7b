"""A classifier that is solved rather than trained: what a network with trained features begins with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from mvnas.training.judging import inputs
from mvnas.training.sampler import trained_size
from mvnas.training.technique import Training
from mvnas.training.weights import calibrate

IMAGES = 512  # that features are taken of
PENALTY = 2.0  # of large weights, in mean squared lengths of features
CONFIDENCE = 8.0  # logits between a class and no class


@torch.no_grad()
def solve_classifier(training: Training, name: str) -> None:
    """Set the linear layer `name` of a training's module to the ridge regression from its inputs to classes.

    A fresh classifier would distort trained features before it has learned to read them (arXiv:2202.10054). Features
    are of IMAGES training images, with batch norms calibrated on these. Nothing is done where targets are no classes,
    or the layer is of another kind.
    """
    module, split, schedule = training.module, training.data.train, training.schedule
    layer = module.get_submodule(name)
    if not isinstance(layer, nn.Linear) or not training.data.classes:
        return
    places = np.random.default_rng(training.seed).permutation(len(split))[:IMAGES]
    side = trained_size(training.resolution, training.factor)
    groups = [np.sort(places[i : i + schedule.batch]) for i in range(0, len(places), schedule.batch)]
    batches = [inputs(training.task, split.images[group], side, layer.weight.device) for group in groups]
    features: list[Tensor] = []
    calibrate(module, batches)
    hook = layer.register_forward_pre_hook(lambda _, given: features.append(given[0].double()))
    for images in batches:
        module(images)
    hook.remove()
    module.train()
    targets = torch.from_numpy(split.targets[np.concatenate(groups)]).to(layer.weight.device)
    weight, bias = ridge(torch.cat(features), one_hot(targets, layer.out_features).double())
    for one in (layer, *getattr(layer, "others", ())):
        one.weight.copy_(weight)
        if one.bias is not None:
            one.bias.copy_(bias)


def ridge(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (K, C) and bias (K,) by which features (N, C) tell classes (N, K), as logits."""
    centre = x.mean(0)
    x, y = x - centre, y - y.mean(0)
    products = x @ x.T
    penalty = PENALTY * products.diagonal().mean()
    weight = (x.T @ torch.linalg.solve(products + penalty * torch.eye(len(x)).to(x), y)).T * CONFIDENCE
    return weight, -weight @ centre
