"""Training with a teacher: candidates learn from its outputs too (distillation, arXiv:1503.02531).

mvnas search --budget 2M-params --technique multi_scale,examples.teacher:network=mobilevit_s:epochs=4
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from mvnas import training
from mvnas.spaces.space import Space
from mvnas.tasks import last
from mvnas.training import Artifact, Preparation, Step


@dataclass
class Technique(training.Technique):
    """A published `network` is trained once a study; its outputs, softened by the `temperature`, are a `share` of
    each target.
    """

    network: str = "mobilevit_xs"
    epochs: float = 1.0
    share: float = 0.5
    temperature: float = 2.0

    def prepare(self, study: Preparation) -> Artifact:
        arch = study.task.arch(Space.load(self.network).arch(), study.data)
        module = study.train(arch, epochs=self.epochs)
        return {"outputs": study.outputs(module, study.data.train, arch.resolution)}

    def loss(self, loss: Tensor, step: Step) -> Tensor:
        taught = torch.from_numpy(self.artifact["outputs"][step.indices]).to(loss.device) / self.temperature
        learnt = last(step.output) / self.temperature
        apart = kl_div(learnt.log_softmax(1), taught.log_softmax(1), reduction="batchmean", log_target=True)
        return (1 - self.share) * loss + self.share * self.temperature**2 * apart
