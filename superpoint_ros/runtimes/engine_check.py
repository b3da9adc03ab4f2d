"""Checks that an engine computes what its graph says: engines have been miscompiled, with finite or infinite values."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from onnx.reference import ReferenceEvaluator

from superpoint_ros.decode import Heads, score_map
from superpoint_ros.runtimes import Arrays, Shapes
from superpoint_ros.runtimes.engine_cache import EngineError
from superpoint_ros.runtimes.onnx_graph import Graph

logger = logging.getLogger(__name__)

AGREEMENT = {'fp32': 0.999, 'tf32': 0.999, 'fp16': 0.98, 'bf16': 0.95}
"""Least correlation between the outputs of the engine and those of the graph."""

Run = Callable[[Sequence[Arrays]], Iterator[Arrays]]
"""An engine; see superpoint_ros.runtimes.Network."""


def check_image_network(graph: Graph, precision: str, run: Run, shapes: Shapes) -> None:
    """Compare the heads of an engine, on a picture with full contrast, with those that OpenCV computes on the CPU.

    The graph is that of the network alone; the engine takes these shapes.

    Raises:
        EngineError: they differ; the message says by how much.
    """
    _, height, width = shapes['image']
    image = picture((width, height))
    check_agreement(next(run([{'image': image[None]}])), heads_of(graph, image), precision)


def check_matcher(graph: Graph, precision: str, run: Run, shapes: Shapes) -> None:
    """Compare the probabilities of matches, for random features, with those of ONNX's evaluator."""
    rng = np.random.default_rng(0)
    inputs = {name: rng.random(shape, np.float32) for name, shape in shapes.items()}
    inputs['valid'][:] = 1
    with np.errstate(divide='ignore'):  # the logarithm of 0
        (output,) = ReferenceEvaluator(graph).run(None, {name: array[None] for name, array in inputs.items()})
    found = next(run([inputs]))['log_assignment']
    check_agreement({'assignment': np.exp(found)}, {'assignment': np.exp(output[0])}, precision)


def check_agreement(found: Arrays, expected: Arrays, precision: str) -> None:
    """Check that the outputs of an engine correlate with those of its graph.

    Raises:
        EngineError: they do not, or are not finite.
    """
    advice = 'try precision fp32' if precision != 'fp32' else 'use another back end'
    agreement = {}
    for name, output in expected.items():
        if not np.isfinite(found[name]).all():
            raise EngineError(f'{name} of the TensorRT engine ({precision}) is not finite; {advice}')
        # A common mean would hide differences.
        mean = output.mean(axis=(0, 1) if name == 'descriptors' else (-2, -1), keepdims=True, dtype=np.float64)
        one, other = (found[name] - mean).ravel(), (output - mean).ravel()
        agreement[name] = float(one @ other / max(np.sqrt((one @ one) * (other @ other)), 1e-12))
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


def heads_of(graph: Graph, image: npt.NDArray[np.uint8]) -> Heads:
    """The heads of a graph for a gray image (H, W), computed in float32 by OpenCV.

    Raises:
        EngineError: OpenCV cannot compute them; before 4.8 it reads no graphs in half precision.
    """
    names = [output.name for output in graph.graph.output]
    try:
        network = cv2.dnn.readNetFromONNX(np.frombuffer(graph.SerializeToString(), np.uint8))
        network.setInput(image[None, None].astype(np.float32) / 255)
        outputs = network.forward(names)
    except cv2.error as error:
        raise EngineError(
            f'the TensorRT engine cannot be checked, because OpenCV {cv2.__version__} cannot compute its graph; use a '
            'graph in float32'
        ) from error
    heads = {name: output[0] for name, output in zip(names, outputs, strict=True)}
    if 'logits' in heads:
        heads['score_map'] = score_map(heads.pop('logits'))
    if 'descriptors' in heads:
        heads['descriptors'] = heads['descriptors'].transpose(1, 2, 0)
    return heads
