"""`superpoint quantize`: 8-bit convolutions, as many as may be without costing more than is allowed."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from superpoint_ros.evaluation import datasets, homography, report
from superpoint_ros.evaluation.datasets import PairLoader
from superpoint_ros.evaluation.methods import methods
from superpoint_ros.evaluation.protocols import PROTOCOLS
from superpoint_ros.files import written_whole
from superpoint_ros.models import QUANTIZED, resolve
from superpoint_ros.runtimes.quantize import convolutions
from superpoint_ros.runtimes.quantize import quantize as quantize_graph

logger = logging.getLogger(__name__)

ACCURACY_LOSS = 0.01
"""What 8 bits may cost of the homography accuracy at 3 px: one point."""
REPEATABILITY_LOSS = 0.02
"""What they may cost of the repeatability, as a share of it."""

ACCURACY, REPEATABILITY = 'accuracy_3', 'repeatability'

Figures = dict[str, float]


def quantize(
    model: str,
    photographs: Path,
    pairs: Path,
    output: Path | None = None,
    calibration: int = 128,
    count: int = 0,
    draws: int = 3,
    seed: int = 0,
) -> str:
    """Make a model's graph with 8-bit convolutions, and write it only if it is nearly as good as the one in fp32.

    Quantizes all convolutions; if that costs more than one point of homography accuracy at 3 px, or 2 % of the
    repeatability, it keeps the last layer of each head as it is, and then the first convolution, too.

    Args:
        model: a shipped model's name, or the path of a .safetensors or .onnx file.
        photographs: folder of pictures to calibrate with.
        pairs: folder of other pictures, of which pairs are made to compare with fp32 in the same run.
        output: the .onnx file to write; beside the graph, with _int8 behind its name, if not given.
        calibration: how many photographs to calibrate with, spread evenly.
        count: compare on only so many of the photographs, spread evenly; 0 for all.
        draws: random pairs of each; few pairs cannot tell one point of accuracy from chance.
        seed: of the first pairs; the next ones have the next seeds.

    Returns:
        What was compared, and which file was written.

    Raises:
        ImportError: NNCF or OpenVINO is not installed.
        ValueError: a folder has no pictures, or the graph is quantized already.
        RuntimeError: it costs too much in every way; nothing is written.
    """
    graph = resolve(model).file('graph')
    output = output or graph.with_name(f'{graph.stem}{QUANTIZED}.onnx')
    images = datasets.spread(datasets.images_in(photographs), calibration)
    size = PROTOCOLS['paper'].description.size
    loaders = [
        loader
        for draw in range(seed, seed + draws)
        for loader in datasets.spread(datasets.random_pairs(pairs, draw, size), count)
    ]
    exact = _figures(graph, loaders)
    rows: list[dict[str, float | str]] = [{'method': 'fp32', **exact}]
    with TemporaryDirectory() as folder:
        candidate = Path(folder) / f'{graph.stem}{QUANTIZED}.onnx'
        for name, keep in _ways(onnx.load(graph)):
            logger.info('%s', name)
            quantize_graph(graph, candidate, images, keep)
            found = _figures(candidate, loaders)
            rows.append({'method': name, **found})
            if good_enough(exact, found):
                with written_whole(output) as partial:
                    shutil.copyfile(candidate, partial)
                return f'{_table(rows)}\n\n{len(loaders)} pairs of {pairs}, from seed {seed} on. Wrote {output}.'
    raise RuntimeError(
        f'8 bits cost more than {ACCURACY_LOSS:.0%} of accuracy or {REPEATABILITY_LOSS:.0%} of repeatability; nothing '
        f'was written\n{_table(rows)}'
    )


def good_enough(exact: Figures, found: Figures) -> bool:
    """Whether a graph is within what 8 bits may cost. A detector without descriptors has no accuracy."""
    # The last term, so that rounding does not decide.
    accurate = found.get(ACCURACY, 0.0) >= exact.get(ACCURACY, 0.0) - ACCURACY_LOSS - 1e-9
    return accurate and found[REPEATABILITY] >= exact[REPEATABILITY] * (1 - REPEATABILITY_LOSS)


def _ways(graph: onnx.ModelProto) -> Iterator[tuple[str, list[str]]]:
    """In words, and as names of the convolutions that stay; the fastest way first."""
    last = last_convolutions(graph)
    yield 'int8', []
    yield 'int8 but the last convolution of each head', last
    yield 'int8 but the first and the last convolutions', [convolutions(graph)[0], *last]


def last_convolutions(graph: onnx.ModelProto) -> list[str]:
    """The convolutions behind which, on the way to some output, there is no other."""
    maker = {output: node for node in graph.graph.node for output in node.output}
    tensors, found = [output.name for output in graph.graph.output], []
    while tensors:
        node = maker.get(tensors.pop())  # none makes inputs and constants
        if node is not None and node.op_type == 'Conv':
            found.append(node.name)
        elif node is not None:
            tensors.extend(node.input)
    return found


def _figures(graph: Path, loaders: Sequence[PairLoader]) -> Figures:
    (method,) = methods([str(graph)], baselines=False, backend='openvino', precision='fp32')
    protocol = PROTOCOLS['paper']
    if method.describes:
        protocol = dataclasses.replace(protocol, detection=())
    results = homography.evaluate(loaders, [method], protocol)
    if results.failed:
        raise ValueError('; '.join(results.failed))
    row = homography.summarize(results.measurements)[0]
    return {name: float(row[name]) for name in (ACCURACY, REPEATABILITY) if name in row}


def _table(rows: Sequence[dict[str, float | str]]) -> str:
    return report.table({'method': 'method', ACCURACY: 'H ε=3', REPEATABILITY: 'repeatability'}, rows)
