"""Measurements as Markdown and as a plot."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from superpoint_ros.benchmark.measure import TOTAL, Row, stages_of
from superpoint_ros.benchmark.methods import EXTRACTION, REST, STAGES
from superpoint_ros.files import written_whole
from superpoint_ros.reports import table

LIBRARIES = ('numpy', 'opencv-python-headless', 'opencv-python', 'openvino', 'torch', 'tensorrt', 'nncf')


def machine() -> dict[str, Any]:
    """The machine, library versions, and the load before (running processes, average of the last minute)."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        'processor': _processor(),
        'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        'system': platform.platform(),
        'python': platform.python_version(),
        'versions': versions,
        'load_before': os.getloadavg()[0] if hasattr(os, 'getloadavg') else None,
    }


def _processor() -> str:
    information = Path('/proc/cpuinfo')
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()


def preamble(data: Mapping[str, Any]) -> str:
    """The machine, the images, and a warning if the machine was busy."""
    about = data['machine']
    versions = ', '.join(f'{name} {version}' for name, version in about['versions'].items())
    text = f'{about["processor"]}, {about["cores"]} cores; Python {about["python"]}, {versions}. {data["images"]}.'
    load = about['load_before']
    if load is not None and load > 0.5:
        text += f' **The machine was busy: {load:.1f} processes were running before. The times are too long.**'
    return text


def stage_tables(results: Sequence[Row]) -> list[str]:
    """A table for each image size: stages in rows, methods in columns, median (99th percentile)."""
    sections = []
    for size in dict.fromkeys(tuple(row['size']) for row in results):
        rows = [row for row in results if tuple(row['size']) == size]
        repetitions = ', '.join(str(row['repetitions']) for row in rows)
        lines = []
        for stage in (*STAGES, TOTAL, EXTRACTION, REST):
            cells = [_cell(row['milliseconds'].get(stage)) for row in rows]
            lines.append([f'**{stage}**' if stage in (TOTAL, REST) else stage, *cells])
        lines.append(['images/s', *(f'{row["images_per_second"]:.1f}' for row in rows)])
        lines.append(['keypoints', *(f'{row["keypoints"]:.0f}' for row in rows)])
        lines.append(['peak memory, MB', *(f'{row["peak_memory_mb"]:.0f}' for row in rows)])
        lines.append(['start, s', *(f'{row["start_seconds"]:.1f}' for row in rows)])
        headings = ['ms', *(row['method'] for row in rows)]
        sections += [f'## {size[0]}×{size[1]}', table(headings, lines), f'Repetitions: {repetitions}.']
    return sections


def node_section(figures: Mapping[str, Any]) -> list[str]:
    """The measurements of the node."""
    lines = []
    for name, times in figures['milliseconds'].items():
        label = f'**{name}**' if name == figures['verdict'] else name
        lines.append([label, f'{times["median"]:.1f}', f'{times["p99"]:.1f}'])
    width, height = figures['size']
    cameras = f'{figures["cameras"]} cameras' if figures['cameras'] > 1 else 'a camera'
    text = (
        f'{figures["published"]} images {width}×{height} mono8 from {cameras} at {figures["rate"]:g} Hz, '
        f'{figures["received"]} feature messages received, {figures["dropped"]} dropped; '
        f'the detector ({figures["about"]}) used {figures["cpu"]:.0%} of one core, '
        f'{figures["cpu_ms_per_frame"]:.0f} ms per frame.'
    )
    title = '## Node: from publishing an image to receiving its features, in three processes'
    return [title, table(['ms', 'median', '99th percentile'], lines), text]


def _cell(times: Mapping[str, float] | None) -> str:
    return '–' if times is None else f'{times["median"]:.1f} ({times["p99"]:.1f})'


def plot(path: Path, results: Sequence[Row]) -> None:
    """Draw the time of each method for an image, for each image size: medians of the stages, one after the other.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    sizes = list(dict.fromkeys(tuple(row['size']) for row in results))
    names = list(dict.fromkeys(row['method'] for row in results))
    figure = Figure(figsize=(4.4 * len(sizes) + 1, 0.5 * len(names) + 1.6), layout='constrained')
    colors = dict(zip((*STAGES, EXTRACTION), mpl.color_sequences['tab10'], strict=False))
    all_axes = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    for axes, size in zip(all_axes, sizes, strict=True):
        for row in (row for row in results if tuple(row['size']) == size):
            times, left = row['milliseconds'], 0.0
            for stage in stages_of(times):
                width = times[stage]['median']
                axes.barh(names.index(row['method']), width, left=left, color=colors[stage], height=0.7)
                left += width
            axes.text(left, names.index(row['method']), f' {left:.3g}', va='center', fontsize=9)
        axes.set(title=f'{size[0]}×{size[1]}', xlabel='ms per image', yticks=range(len(names)), yticklabels=names)
        axes.margins(x=0.18)
        axes.spines[['top', 'right']].set_visible(False)
    all_axes[0].invert_yaxis()
    handles = [mpl.patches.Patch(color=color, label=stage) for stage, color in colors.items()]
    figure.legend(handles=handles, loc='outside lower center', ncols=len(handles), frameon=False)
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=130)
