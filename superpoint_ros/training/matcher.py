"""Training of a learned matcher (LightGlue, arXiv 2306.13643, section 3.4) on pairs whose matches are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from superpoint_ros import models
from superpoint_ros.extractor import Extractor
from superpoint_ros.learned_matching import MIN_PROBABILITY
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.lightglue import LightGlue
from superpoint_ros.networks.lightglue_config import LightGlueConfig
from superpoint_ros.training import matcher_transfer
from superpoint_ros.training.datasets import TRAINING
from superpoint_ros.training.losses import mean_of, mutual
from superpoint_ros.training.matcher_data import MatcherData
from superpoint_ros.training.photometric import PhotometricConfig
from superpoint_ros.training.scene_features import NONE
from superpoint_ros.training.stage import Batch, Stage


class MatcherTraining(Stage):
    """A matcher, on the features of a fixed extractor (MatcherData).

    Initial weights of a matcher for another extractor get a new first layer (superpoint_ros.training.matcher_transfer).

    Args:
        network: its shape; the data sets its extractor.
        initial_extractor: what the initial weights were trained for, if it is not a shipped model: a path.
        optimizer: as in Stage: lr, warmup, cooldown, weight_decay, initial_weights.
    """

    def __init__(self, network: LightGlueConfig, initial_extractor: str | None = None, **optimizer: Any) -> None:
        super().__init__(LightGlue(network), PhotometricConfig(), **optimizer)
        self.initial_extractor = initial_extractor

    def setup(self, stage: str) -> None:
        """Record in the network which extractor it is trained for, and fit initial weights to it.

        Raises:
            ValueError: the initial weights do not fit the network, or were trained for an extractor that is not there.
        """
        super().setup(stage)
        data: MatcherData = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.initial_weights is not None and not self.trainer.ckpt_path:
            self._fit_first_layer(self.initial_weights, data)
        owner = {'extractor': data.model.name, 'extractor_checksum': data.checksum}
        for network in (self.network, self.average):
            network.config = dataclasses.replace(network.config, **owner)  # type: ignore[type-var, arg-type]

    def _fit_first_layer(self, initial_weights: Path, data: MatcherData) -> None:
        assert isinstance(self.network, LightGlue)
        given = checkpoint.load_matcher(initial_weights)
        name, trained_for = given.config.extractor, given.config.extractor_checksum
        if trained_for == data.checksum:
            return
        extractor = self.initial_extractor or (name if name in models.SHIPPED else '')
        if not extractor or models.checksum(models.resolve(extractor).file('weights')) != trained_for:
            raise ValueError(
                f'initial weights {initial_weights} were trained for {name or "an unknown model"} (checksum '
                f'{trained_for[:12]}): name its file as --model.initial_extractor'
            )
        kept = data.scenes.keypoints
        given_extractor, wanted = (
            Extractor(model, resize=0, max_keypoints=kept) for model in (extractor, data.extractor)
        )
        places = matcher_transfer.describe_places(data.photographs[TRAINING], given_extractor, wanted)
        matcher_transfer.fit_first_layer(self.network, given, places)
        self.average.load_state_dict(self.network.state_dict())

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(self.network, LightGlue)
        partners, valid = batch['partners'], batch['valid']
        states = self.network.states(batch['keypoints'], batch['descriptors'], valid, batch['scores'])
        layers = []
        for state, assignment in zip(states, self.network.assignment, strict=True):
            log_assignment, logits = assignment(state, valid)
            layers.append(matching_loss(log_assignment, logits, partners, valid))
        recall, precision = recall_and_precision(log_assignment.detach(), partners, valid)
        return torch.stack(layers).mean(), {'loss/last': layers[-1].detach(), 'recall': recall, 'precision': precision}


def matching_loss(log_assignment: Tensor, logits: Tensor, partners: Tensor, valid: Tensor) -> Tensor:
    """The mean negative log-likelihood of the known matches, plus that of keypoints without a partner (equation 12).

    Args:
        log_assignment: (B, N, N).
        logits: (B, 2, N), of having a match.
        partners: (B, 2, N): of each keypoint its partner's number, or NONE, or UNSURE; such keypoints do not count.
        valid: (B, 2, N), 0 for padding.
    """
    first = partners[:, 0]
    matched = log_assignment.gather(2, first.clamp(min=0)[..., None]).squeeze(-1)
    alone = (partners == NONE) & (valid > 0)
    return mean_of(-matched, first >= 0) + mean_of(-F.logsigmoid(-logits), alone)


@torch.no_grad()
def recall_and_precision(log_assignment: Tensor, partners: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The share of known matches that are found, and of found matches that are right; UNSURE keypoints do not count."""
    both = valid[:, 0, :, None] * valid[:, 1, None]
    scores = log_assignment.masked_fill(both == 0, -torch.inf)
    best, column = scores.max(dim=2)
    found = mutual(column, scores.argmax(dim=1)) & (best.exp() >= MIN_PROBABILITY)
    first = partners[:, 0]
    right = found & (column == first)
    sure = (first >= NONE) & (partners[:, 1].gather(1, column) >= NONE)
    return mean_of(right.float(), first >= 0), mean_of(right.float(), found & sure)
