"""Writes what was measured: a Markdown table, JSON, and plots."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from superpoint_ros import drawing
from superpoint_ros.evaluation.datasets import Pair
from superpoint_ros.evaluation.methods import Method
from superpoint_ros.files import written_whole

if TYPE_CHECKING:
    from superpoint_ros.evaluation.homography import Matched

Curve = tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]


def table(columns: Mapping[str, str], rows: Sequence[Mapping[str, float | str]]) -> str:
    """A Markdown table.

    Args:
        columns: key in the rows → heading; a heading that ends in a number sign (#) has whole numbers.
        rows: what stands in them; a missing value or NaN is shown as –.
    """
    headings = [heading.rstrip('#').strip() for heading in columns.values()]
    lines = [headings, ['---' if key in _TEXT else '---:' for key in columns]]
    lines += [[_cell(row.get(key), heading.endswith('#')) for key, heading in columns.items()] for row in rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


_TEXT = ('stage', 'method', 'split', 'variant', 'shape')


def _cell(value: float | str | None, whole: bool) -> str:
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(value):
        return '–'
    return f'{value:.0f}' if whole else f'{value:.3f}'


def preamble(images: str, methods: Sequence[Method]) -> str:
    """A list of the images that were measured, and of the methods by what ran them."""
    by_about: dict[str, list[str]] = {}
    for method in methods:
        by_about.setdefault(method.about, []).append(method.name)
    return '\n'.join([f'- Images: {images}', *(f'- {", ".join(names)}: {about}' for about, names in by_about.items())])


def finish(
    output: Path,
    name: str,
    title: str,
    images: str,
    methods: Sequence[Method],
    sections: Sequence[str],
    data: Mapping[str, Any],
    failed: Sequence[str] = (),
) -> str:
    """Write NAME.md and NAME.json.

    Args:
        output: folder.
        name: of the files.
        title: of the report.
        images: what was measured, for people.
        methods: what was compared.
        sections: paragraphs and tables in Markdown.
        data: everything that was measured.
        failed: a sentence for each image that could not be read.

    Returns:
        The report in Markdown.

    Raises:
        ValueError: some images could not be read; the report of the others has been written.
    """
    sections = [f'# {title}', preamble(images, methods), *sections]
    if failed:
        sections += ['Could not be read, and in none of the figures:', '\n'.join(f'- {f}' for f in failed)]
    markdown = '\n\n'.join(sections) + '\n'
    about = {method.name: method.about for method in methods}
    write(output, name, markdown, {'images': images, 'methods': about, **data, 'failed': list(failed)})
    if failed:
        where = output / f'{name}.md'
        raise ValueError(f'{len(failed)} could not be read, the others are in {where}:\n' + '\n'.join(failed))
    return markdown


def write(folder: Path, name: str, markdown: str, data: Mapping[str, Any]) -> None:
    """Write NAME.md and NAME.json; numbers that are not finite become null in the JSON.

    Args:
        folder: where; made if it is missing.
        name: of the files.
        markdown: the report.
        data: everything that was measured, and how.
    """
    with written_whole(folder / f'{name}.md') as path:
        path.write_text(markdown, encoding='utf-8', errors='backslashreplace')
    with written_whole(folder / f'{name}.json') as path:
        text = json.dumps(_finite(data), indent=1, ensure_ascii=False)
        path.write_text(text, encoding='utf-8', errors='backslashreplace')  # names of files need not be UTF-8


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plot(path: Path, panels: Mapping[str, Mapping[str, Curve]], x: str, y: str, limits: tuple[float, float]) -> None:
    """Draw curves, one color a method, in panels side by side.

    Args:
        path: of the picture.
        panels: title → method → (x values, y values); the order of all methods gives their colors.
        x: what the horizontal axis is.
        y: what the vertical axis is; it goes from 0 to 1.
        limits: of the horizontal axis.
    """
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    colors = dict(zip(names, mpl.color_sequences['tab10'] * (len(names) // 10 + 1), strict=False))
    figure = Figure(figsize=(5.2 * len(panels), 4.4), layout='constrained')
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, curves) in zip(all_axes, panels.items(), strict=True):
        _draw(axes, curves, colors)
        axes.set(title=title, xlabel=x, xlim=limits, ylim=(0, 1.02))
    figure.axes[0].set_ylabel(y)
    figure.axes[-1].legend(loc='best', frameon=False)
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=130)


def _draw(axes: Axes, curves: Mapping[str, Curve], colors: Mapping[str, Any]) -> None:
    for name, (horizontal, vertical) in curves.items():
        axes.plot(horizontal, vertical, label=name, color=colors[name], linewidth=1.6)
    axes.grid(color='0.9', linewidth=0.8)
    axes.spines[['top', 'right']].set_visible(False)


def draw_matches(path: Path, pair: Pair, matched: Mapping[str, Matched]) -> None:
    """Draw a pair once for each method, one below the other: matched points, green if right, and some of the lines.

    Args:
        path: of the picture.
        pair: at the size that it was matched at.
        matched: method → its matches.
    """
    rows = []
    for name, found in matched.items():
        picture = drawing.draw_matches((pair.image0, pair.image1), found.points0, found.points1, found.correct)
        text = f'{name}: {int(found.correct.sum())} of {len(found.correct)} matches right'
        rows.append(drawing.with_caption(picture, text))
    drawing.write(path, np.vstack(rows))
