"""`superpoint benchmark`."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from superpoint_ros import reports, runtimes
from superpoint_ros.learned_matching import resolve_matcher
from superpoint_ros.models import DEFAULT, check_distinct, resolve

logger = logging.getLogger(__name__)

SIZES = ('320x240', '640x480', '1280x720', '1920x1080')
NODE_SIZE = (640, 480)


def benchmark(
    models: Sequence[str] = (DEFAULT,),
    output: Path = Path('benchmark'),
    sizes: Sequence[str] = SIZES,
    backends: Sequence[str] = (),
    precisions: Sequence[str] = ('fp32', 'auto'),
    baselines: bool = True,
    max_keypoints: int = 1024,
    threads: int = 0,
    images: Path | None = None,
    repetitions: int = 50,
    seconds: float = 15.0,
    node: bool = False,
    rate: float = 30.0,
    cameras: int = 1,
    matchers: Sequence[str] = (),
) -> str:
    """Time every stage from image message to features message, and OpenCV's SIFT and ORB in the same run.

    Args:
        models: names of shipped models, or paths of .safetensors or .onnx files.
        output: folder for benchmark.md, benchmark.json and benchmark.png.
        sizes: image sizes WIDTHxHEIGHT at the network; without a value, none.
        backends: libraries that run the models; if not given, all that are installed.
        precisions: precisions of the convolutions; those that a back end does not support are left out.
        baselines: also time SIFT and ORB.
        max_keypoints: maximum number of keypoints of each method.
        threads: CPU threads; 0 for the default of each library.
        images: folder of images; if not given, photographs of scikit-image.
        repetitions: repetitions of each method; the methods take turns.
        seconds: time limit for each image size, after at least three repetitions, and duration for the node.
        node: also measure latency and CPU use of the node, with the first model, back end and precision.
        rate: images per second that each camera sends to the node.
        cameras: number of cameras of the node.
        matchers: learned matchers to time beside nearest neighbors: learned, or names or paths.

    Raises:
        ImportError: a back end is not installed.
        ValueError: an option is wrong, or nothing could be measured.
    """
    from superpoint_ros.benchmark import report
    from superpoint_ros.benchmark.measure import measure
    from superpoint_ros.benchmark.methods import OPENCV, Method, color_message
    from superpoint_ros.benchmark.pictures import fit, pictures

    parsed = [parse_size(size) for size in sizes]
    if repetitions < 1 or not 0 < seconds < math.inf or not 0.1 <= rate <= 1000 or cameras < 1:
        raise ValueError('expected at least 1 repetition, more than 0 seconds, 0.1 to 1000 Hz, and at least 1 camera')
    if not models or not precisions:
        raise ValueError('models, precisions: expected at least one of each')
    check_distinct('models', [resolve(model).name for model in models])
    check_distinct('matchers', [resolve_matcher(matcher).name for matcher in matchers])
    for backend in backends:
        runtimes.require(backend)
    chosen = list(backends) or installed()
    if not chosen and (node or not baselines):
        raise ValueError('no back end is installed: pip install superpoint_ros[cpu]')
    if not (sizes or node or matchers):
        raise ValueError('nothing to measure: expected at least one size, or node or matchers')
    if node:
        from superpoint_ros.benchmark.node import measure_node
    found, which = pictures(images)
    output.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {'machine': report.machine(), 'images': which[0].upper() + which[1:]}
    options = [{'backend': backend, 'precision': precision} for backend in chosen for precision in precisions]
    methods = [
        Method('model', max_keypoints, threads, m, {'resize': 0, **option}) for m in models for option in options
    ]
    if baselines:
        methods += [Method(name, max_keypoints, threads) for name in OPENCV]
    results, left_out = [], []
    for size in parsed:
        logger.info('%d×%d', *size)
        rows, failed = measure(methods, [color_message(fit(p, size)) for p in found], repetitions, seconds)
        results += [{'size': list(size), **row} for row in rows]
        left_out += [reason for reason in failed if reason not in left_out]
    data |= {'threads': threads, 'max_keypoints': max_keypoints, 'results': results, 'left_out': left_out}
    sections = ['# Benchmark', report.preamble(data), *report.stage_tables(results)]
    if node:
        logger.info('node')
        first = {**options[0], 'max_keypoints': max_keypoints, 'threads': threads}
        data['node'] = measure_node(models[0], first, [fit(p, NODE_SIZE) for p in found], rate, seconds, cameras)
        sections += report.node_section(data['node'])
    if matchers:
        from superpoint_ros.benchmark.matching import matching_section, measure_matchers

        data['matching'] = measure_matchers(matchers, repetitions, threads)
        sections += matching_section(data['matching'])
    if left_out:
        sections.append('Left out: ' + '; '.join(left_out) + '.')
    if not results and not node and not matchers:
        raise ValueError('nothing was measured: ' + '; '.join(left_out))
    markdown = '\n\n'.join(sections) + '\n'
    reports.write(output, 'benchmark', markdown, data)
    if results:
        try:
            report.plot(output / 'benchmark.png', results)
        except ImportError as error:
            logger.warning('no plot: %s', error)
    return markdown


def parse_size(size: str) -> tuple[int, int]:
    """(width, height) of WIDTHxHEIGHT.

    Raises:
        ValueError: it has another form, or a side is not 16 to 8192 pixels.
    """
    match = re.fullmatch(r'(\d{2,4})x(\d{2,4})', size)
    sides = [int(side) for side in match.groups()] if match else []
    if not sides or not all(16 <= side <= 8192 for side in sides):
        raise ValueError(f'sizes: expected WIDTHxHEIGHT of 16 to 8192 pixels, such as 640x480, got {size!r}')
    return sides[0], sides[1]


def installed() -> list[str]:
    """The back ends whose libraries are installed."""
    found = []
    for backend in runtimes.TABLE:
        try:
            runtimes.require(backend)
        except ImportError:
            continue
        found.append(backend)
    return found
