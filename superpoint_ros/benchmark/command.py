"""`superpoint benchmark`."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from superpoint_ros import runtimes
from superpoint_ros.benchmark import report
from superpoint_ros.benchmark.measure import measure
from superpoint_ros.benchmark.pictures import fit, pictures
from superpoint_ros.benchmark.subjects import OPENCV, Subject, color_message
from superpoint_ros.files import written_whole
from superpoint_ros.models import DEFAULT, resolve

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
    keypoints: int = 1024,
    threads: int = 0,
    images: Path | None = None,
    repetitions: int = 50,
    seconds: float = 15.0,
    node: bool = False,
    rate: float = 30.0,
    cameras: int = 1,
) -> str:
    """Time every stage from image to features message, beside OpenCV's SIFT and ORB in the same run.

    Args:
        models: shipped models' names, or paths of .safetensors or .onnx files.
        output: folder for benchmark.md, benchmark.json and benchmark.png.
        sizes: of the images, WIDTHxHEIGHT, which the network sees as they are; '[]' for none.
        backends: libraries that run the models; all that are installed if not given.
        precisions: arithmetic of the convolutions; those that a back end has not got are left out.
        baselines: time SIFT and ORB, too.
        keypoints: at most so many, of each method.
        threads: of the CPU; 0 for each library's own choice.
        images: folder of pictures; photographs of scikit-image if not given.
        repetitions: of each method, which take turns.
        seconds: for each image size, after which no repetition begins; and for the node.
        node: measure the node, too, with the first model, back end and precision: latency between processes, CPU use.
        rate: of the images that the node gets from each camera, in Hz.
        cameras: that the node gets images from.

    Returns:
        The report in Markdown.

    Raises:
        ImportError: a back end that was asked for is not installed.
        ValueError: an option is wrong, or nothing could be measured.
    """
    parsed = [parse_size(size) for size in sizes]
    if repetitions < 1 or not 0 < seconds < math.inf or not 0.1 <= rate <= 1000 or cameras < 1:
        raise ValueError('expected at least 1 repetition, more than 0 seconds, 0.1 to 1000 Hz, and at least 1 camera')
    for model in models:
        resolve(model)
    if not models:
        raise ValueError('name at least one model')
    for backend in backends:
        runtimes.require(backend)
    chosen = list(backends) or installed()
    if not chosen and (node or not baselines):
        raise ValueError('no back end is installed: pip install superpoint_ros[cpu]')
    found, which = pictures(images)
    data: dict[str, Any] = {'machine': report.machine(), 'images': which[0].upper() + which[1:]}
    options = [{'backend': backend, 'precision': precision} for backend in chosen for precision in precisions]
    subjects = [Subject('model', keypoints, threads, m, {'resize': 0, **option}) for m in models for option in options]
    if baselines:
        subjects += [Subject(name, keypoints, threads) for name in OPENCV]
    results, left_out = [], []
    for size in parsed:
        logger.info('%d×%d', *size)
        rows, failed = measure(subjects, [color_message(fit(p, size)) for p in found], repetitions, seconds)
        results += [{'size': list(size), **row} for row in rows]
        left_out += [reason for reason in failed if reason not in left_out]
    data |= {'threads': threads, 'max_keypoints': keypoints, 'results': results, 'left_out': left_out}
    sections = ['# Benchmark', report.preamble(data), *report.stage_tables(results)]
    if node:
        from superpoint_ros.benchmark.node import measure_node

        logger.info('node')
        first = {**options[0], 'max_keypoints': keypoints, 'threads': threads}
        data['node'] = measure_node(models[0], first, [fit(p, NODE_SIZE) for p in found], rate, seconds, cameras)
        sections += report.node_section(data['node'])
    if left_out:
        sections.append('Left out: ' + '; '.join(left_out) + '.')
    if not results and not node:
        raise ValueError('nothing was measured: ' + ('; '.join(left_out) or 'name at least one size'))
    return _finish(sections, data, output)


def parse_size(size: str) -> tuple[int, int]:
    """(width, height) of WIDTHxHEIGHT.

    Raises:
        ValueError: it is something else, or not 16 to 8192 pixels.
    """
    match = re.fullmatch(r'(\d{2,4})x(\d{2,4})', size)
    sides = [int(side) for side in match.groups()] if match else []
    if not sides or not all(16 <= side <= 8192 for side in sides):
        raise ValueError(f'sizes: expected WIDTHxHEIGHT of 16 to 8192 pixels, such as 640x480, got {size!r}')
    return sides[0], sides[1]


def installed() -> list[str]:
    """The back ends whose libraries are there."""
    there = []
    for backend in runtimes.TABLE:
        try:
            runtimes.require(backend)
        except ImportError:
            continue
        there.append(backend)
    return there


def _finish(sections: Sequence[str], data: dict[str, Any], output: Path) -> str:
    markdown = '\n\n'.join(sections) + '\n'
    with written_whole(output / 'benchmark.md') as path:
        path.write_text(markdown, encoding='utf-8')
    with written_whole(output / 'benchmark.json') as path:
        path.write_text(json.dumps(_finite(data), indent=1, ensure_ascii=False, allow_nan=False), encoding='utf-8')
    if data['results']:
        try:
            report.plot(output / 'benchmark.png', data['results'])
        except ImportError as error:
            logger.warning('no plot: %s', error)
    return markdown


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
