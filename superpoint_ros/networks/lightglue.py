"""LightGlue (Lindenberger, Sarlin, Pollefeys 2023, arXiv 2306.13643): matches the keypoints of two images."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from superpoint_ros.networks.lightglue_config import LightGlueConfig

SHARPNESS = 20.0
"""Factor of the cosine of two descriptors in an untrained network's similarities."""

MASKED = -1e4
"""Added to the logits of padding: its exponential is 0, and half precision holds the sum."""


class LightGlue(nn.Module):
    """Maps the keypoints of pairs of images to the logarithms of their match probabilities.

    An untrained network matches by the cosines of the descriptors alone, so training starts from nearest neighbors and
    not from chance. The paper starts at random.

    Args of forward, for B pairs with N keypoints in each image, some of which may be padding:
        keypoints: (B, 2, N, 2), relative to the image's center, divided by half its longest side.
        descriptors: (B, 2, N, D) with unit rows.
        valid: (B, 2, N) float, 1 for a keypoint and 0 for padding.
        scores: (B, 2, N) in [0, 1], if the configuration uses them.

    Returns from forward, by name:
        log_assignment: (B, N, N), the logarithm of the probability that keypoint i of the first image matches keypoint
            j of the second one (equation 8); undefined for padding.
    """

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__()
        self.config = config
        width, heads, layers = config.width, config.heads, range(config.layers)
        size = config.descriptor_size
        self.input = nn.Linear(size + config.use_scores, width)
        nn.init.zeros_(self.input.weight)
        nn.init.orthogonal_(self.input.weight.data[:, :size], max(size, width) ** 0.5)  # states of length √width
        nn.init.zeros_(self.input.bias)
        self.frequencies = nn.Linear(2, width // 2, bias=False)
        nn.init.normal_(self.frequencies.weight)
        self.self_attention = nn.ModuleList(Attention(width, heads, own_keys=True) for _ in layers)
        self.cross_attention = nn.ModuleList(Attention(width, heads, own_keys=False) for _ in layers)
        self.assignment = nn.ModuleList(Assignment(width) for _ in layers)

    def forward(
        self, keypoints: Tensor, descriptors: Tensor, valid: Tensor, scores: Tensor | None = None
    ) -> dict[str, Tensor]:
        *_, last = self.states(keypoints, descriptors, valid, scores)
        log_assignment, _ = self.assignment[-1](last, valid)
        return {'log_assignment': log_assignment}

    def states(
        self, keypoints: Tensor, descriptors: Tensor, valid: Tensor, scores: Tensor | None = None
    ) -> Iterator[Tensor]:
        """The states (2·B, N, width) of the keypoints after each layer; arguments as in forward.

        Here and below, the rows of a batch alternate between first and second images.
        """
        if self.config.use_scores:
            assert scores is not None
            descriptors = torch.cat([descriptors, scores[..., None]], dim=-1)
        state = self.input(descriptors.flatten(0, 1))
        angles = split_heads(self.frequencies(keypoints.flatten(0, 1)), self.config.heads)
        rotation = angles.cos(), angles.sin()
        bias = (1 - valid.flatten(0, 1))[:, None, None] * MASKED
        for self_attention, cross_attention in zip(self.self_attention, self.cross_attention, strict=True):
            state = self_attention(state, state, bias, rotation)
            state = cross_attention(state, swap_images(state), swap_images(bias))
            yield state


class Attention(nn.Module):
    """Updates states of length `width` with what they gather from those of an image, by some heads (section 3.1).

    Keys have their own projection in self-attention; in cross-attention queries are keys.
    """

    def __init__(self, width: int, heads: int, own_keys: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width) if own_keys else None
        self.value = nn.Linear(width, width)
        self.message = nn.Linear(width, width)
        self.update = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        for parameter in self.update[-1].parameters():  # at first, states stay as they are
            nn.init.zeros_(parameter)

    def forward(
        self, state: Tensor, source: Tensor, bias: Tensor, rotation: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """The new states.

        Args:
            state: (2·B, N, width), of the keypoints that attend.
            source: (2·B, N, width), of the keypoints that they attend to.
            bias: (2·B, 1, 1, N), added to the attention logits of the source.
            rotation: cosines and sines (2·B, heads, N, width / heads / 2) of the rotary encoding, or none.
        """
        to_key = self.query if self.key is None else self.key
        query, key = split_heads(self.query(state), self.heads), split_heads(to_key(source), self.heads)
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)
        value = split_heads(self.value(source), self.heads)
        gathered = F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype))
        message = self.message(gathered.transpose(1, 2).flatten(2))
        return state + self.update(torch.cat([state, message], dim=-1))


class Assignment(nn.Module):
    """Turns states into the logarithms of match probabilities (section 3.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, width)
        self.matchability = nn.Linear(width, 1)
        nn.init.eye_(self.projection.weight).data.mul_((SHARPNESS / width**0.5) ** 0.5)
        for parameter in (self.projection.bias, self.matchability.weight, self.matchability.bias):
            nn.init.zeros_(parameter)

    def forward(self, state: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The log assignment (B, N, N) of states (2·B, N, width), and the logits (B, 2, N) of having a match at all."""
        projected0, projected1 = by_image(self.projection(state) * self.projection.out_features**-0.25)
        similarity = (projected0 @ projected1.transpose(1, 2)).float()
        padding0, padding1 = ((1 - valid) * MASKED).unbind(dim=1)
        logits = self.matchability(state).float().view(valid.shape)
        matchable0, matchable1 = F.logsigmoid(logits).unbind(dim=1)
        log_assignment = (similarity + padding1[:, None]).log_softmax(dim=2) + matchable0[:, :, None]
        log_assignment = log_assignment + (similarity + padding0[:, :, None]).log_softmax(dim=1) + matchable1[:, None]
        return log_assignment, logits


def split_heads(states: Tensor, heads: int) -> Tensor:
    """(B, N, W) as (B, heads, N, W / heads)."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def by_image(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the second images' rows (B, …) of a batch (2·B, …)."""
    first, second = tensor.unflatten(0, (-1, 2)).unbind(dim=1)
    return first, second


def swap_images(tensor: Tensor) -> Tensor:
    """A batch (2·B, …) with first and second images exchanged."""
    first, second = by_image(tensor)
    return torch.stack([second, first], dim=1).flatten(0, 1)


def rotate(vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn element i of the first half of each vector together with element i of the second half (equation 4)."""
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, first * sines + second * cosines], dim=-1)
