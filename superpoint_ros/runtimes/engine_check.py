"""Checks that an engine computes what its graph says: engines have been miscompiled, with finite or infinite values."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros.decode import Heads, score_map
from superpoint_ros.runtimes import Arrays
from superpoint_ros.runtimes.engine_cache import EngineError
from superpoint_ros.runtimes.onnx_graph import Graph

logger = logging.getLogger(__name__)

AGREEMENT = {'fp32': 0.999, 'tf32': 0.999, 'fp16': 0.98, 'bf16': 0.95}
"""Least correlation between the heads of the engine and those of the graph."""


def check_agreement(
    graph: Graph, precision: str, run: Callable[[Sequence[Arrays]], Iterator[Arrays]], size: tuple[int, int]
) -> None:
    """Compare the heads of an engine, on a picture with full contrast, with those that OpenCV computes on the CPU.

    Args:
        graph: of the network, as onnx_graph.read returns it.
        precision: of the engine.
        run: the engine; see superpoint_ros.runtimes.Network.
        size: (width, height) of the images that the engine takes.

    Raises:
        EngineError: they differ; the message says by how much.
    """
    image = picture(size)
    found = next(run([{'image': image[None]}]))
    advice = 'try precision fp32' if precision != 'fp32' else 'use another back end'
    for name, head in found.items():
        if not np.isfinite(head).all():
            raise EngineError(f'{name} of the TensorRT engine ({precision}) is not finite; {advice}')
    agreement = correlation(found, reference(graph, image))
    text = ', '.join(f'{name} {value:.4f}' for name, value in agreement.items())
    if not min(agreement.values()) >= AGREEMENT[precision]:
        raise EngineError(
            f'the TensorRT engine ({precision}) disagrees with its graph: correlation of {text}, expected at least '
            f'{AGREEMENT[precision]}; {advice}'
        )
    logger.info('the TensorRT engine agrees with its graph: correlation of %s', text)


def picture(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """An image (H, W) of squares with random gray values from black to white, the same each time."""
    width, height = size
    squares = np.random.default_rng(0).integers(0, 256, (-(-height // 20), -(-width // 20)), np.uint8)
    return squares.repeat(20, axis=0).repeat(20, axis=1)[:height, :width].copy()


def reference(graph: Graph, image: npt.NDArray[np.uint8]) -> Heads:
    """The heads of a graph for a gray image (H, W), computed in float32 by OpenCV."""
    network = cv2.dnn.readNetFromONNX(np.frombuffer(graph.SerializeToString(), np.uint8))
    network.setInput(image[None, None].astype(np.float32) / 255)
    names = [output.name for output in graph.graph.output]
    outputs = {name: output[0] for name, output in zip(names, network.forward(names), strict=True)}
    if 'logits' in outputs:
        outputs['score_map'] = score_map(outputs.pop('logits'))
    if 'descriptors' in outputs:
        outputs['descriptors'] = outputs['descriptors'].transpose(1, 2, 0)
    return outputs


def correlation(found: Heads, expected: Heads) -> dict[str, float]:
    """Correlation of two sets of heads, by name; means over the image are subtracted, channel by channel."""
    result = {}
    for name, head in expected.items():
        axes = (0, 1) if name == 'descriptors' else (-2, -1)
        mean = head.mean(axis=axes, keepdims=True, dtype=np.float64)
        one, other = (found[name] - mean).ravel(), (head - mean).ravel()
        result[name] = float(one @ other / max(np.sqrt((one @ one) * (other @ other)), 1e-12))
    return result
