"""Quantizes as many convolutions of a graph as accuracy allows."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from superpoint_ros.evaluation import homography, report
from superpoint_ros.evaluation.datasets import PairLoader
from superpoint_ros.evaluation.methods import ModelsConfig, methods
from superpoint_ros.evaluation.protocols import PROTOCOLS
from superpoint_ros.files import written_whole
from superpoint_ros.models import QUANTIZED
from superpoint_ros.runtimes.quantize import convolutions, read
from superpoint_ros.runtimes.quantize import quantize as quantize_graph

logger = logging.getLogger(__name__)

ACCURACY_LOSS = 0.01
"""Largest loss of homography accuracy at 3 px: one point."""
REPEATABILITY_LOSS = 0.02
"""Largest loss of repeatability, relative."""

ACCURACY, REPEATABILITY = 'accuracy_3', 'repeatability'

Figures = dict[str, float]


def quantize(graph: Path, output: Path, images: Sequence[Path], loaders: Sequence[PairLoader]) -> str:
    """Quantize a graph, and write the result only if it is nearly as accurate as the graph in fp32.

    Quantizes all convolutions; if that costs more than one point of homography accuracy at 3 px, or 2 % of the
    repeatability, it keeps the last layer of each head in float, then the first convolution, too.

    The images calibrate the quantized graph, and the pairs compare it with the graph in fp32.

    Returns:
        The figures of every attempt, as a Markdown table.

    Raises:
        ImportError: NNCF or OpenVINO is not installed.
        ValueError: the graph is not in float32, or an image cannot be read.
        RuntimeError: every attempt costs too much; nothing is written.
    """
    model = read(graph)
    exact = _figures(graph, 'fp32', loaders)
    rows: list[dict[str, float | str]] = [{'method': 'fp32', **exact}]
    last = last_convolutions(model)
    attempts = {  # the fastest first, with the convolutions that it keeps in float
        'int8': [],
        'int8 but the last convolution of each head': last,
        'int8 but the first and the last convolutions': [*convolutions(model)[:1], *last],
    }
    with TemporaryDirectory() as folder:
        candidate = Path(folder) / f'{graph.stem}{QUANTIZED}.onnx'
        for name, keep in attempts.items():
            logger.info('%s', name)
            quantize_graph(graph, candidate, images, keep)
            found = _figures(candidate, 'int8', loaders)
            rows.append({'method': name, **found})
            if good_enough(exact, found):
                with written_whole(output) as partial:
                    shutil.copyfile(candidate, partial)
                return _table(rows)
    raise RuntimeError(
        f'8 bits cost more than {ACCURACY_LOSS:.0%} of accuracy or {REPEATABILITY_LOSS:.0%} of repeatability; nothing '
        f'was written\n{_table(rows)}'
    )


def good_enough(exact: Figures, found: Figures) -> bool:
    """Whether the losses of a quantized graph are small enough. A detector without descriptors has no accuracy."""
    # The last term absorbs rounding errors.
    accurate = found.get(ACCURACY, 0.0) >= exact.get(ACCURACY, 0.0) - ACCURACY_LOSS - 1e-9
    return accurate and found[REPEATABILITY] >= exact[REPEATABILITY] * (1 - REPEATABILITY_LOSS)


def last_convolutions(graph: onnx.ModelProto) -> list[str]:
    """The last convolution before each output."""
    maker = {output: node for node in graph.graph.node for output in node.output}
    tensors, found = [output.name for output in graph.graph.output], []
    while tensors:
        node = maker.get(tensors.pop())  # none makes inputs and constants
        if node is not None and node.op_type == 'Conv':
            found.append(node.name)
        elif node is not None:
            tensors.extend(node.input)
    return found


def _figures(graph: Path, precision: str, loaders: Sequence[PairLoader]) -> Figures:
    (method,) = methods(ModelsConfig((str(graph),), 'openvino', precision), baselines=False)
    protocol = PROTOCOLS['paper']
    if method.describes:
        protocol = dataclasses.replace(protocol, detection=())
    results = homography.evaluate(loaders, [method], protocol)
    if results.failed:
        raise ValueError('; '.join(results.failed))
    (row, *_) = report.means(results.rows, ('stage',))
    return {name: float(row[name]) for name in (ACCURACY, REPEATABILITY) if name in row}


def _table(rows: Sequence[dict[str, float | str]]) -> str:
    return report.table({'method': 'method', ACCURACY: 'H ε=3', REPEATABILITY: 'repeatability'}, rows)
