"""Writes measurements: means as Markdown tables, everything as JSON, and plots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from superpoint_ros import reports
from superpoint_ros.evaluation.methods import Method
from superpoint_ros.files import written_whole

Curve = tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]
Row = dict[str, Any]


def means(rows: Sequence[Mapping[str, Any]], by: Sequence[str], count: str = 'pairs') -> list[Row]:
    """The means of all numbers over each group of rows with the same values at the keys `by`, in order of appearance.

    Rows may lack numbers. NaN is left out, and a mean of nothing is NaN. The key `count` has the number of rows.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in by), []).append(row)
    summary = []
    for group, members in groups.items():
        mean: Row = {**dict(zip(by, group, strict=True)), count: len(members)}
        for name in dict.fromkeys(name for row in members for name in row if name not in by):
            values = [row[name] for row in members if name in row]
            if all(isinstance(value, (int, float)) for value in values):
                defined = [value for value in values if not math.isnan(value)]
                mean[name] = float(np.mean(defined)) if defined else math.nan
        summary.append(mean)
    return summary


def table(columns: Mapping[str, str], rows: Sequence[Mapping[str, float | str]]) -> str:
    """A Markdown table.

    Args:
        columns: key in the rows → heading; a heading that ends in a number sign (#) has whole numbers.
        rows: the cells; a missing value or NaN is shown as –.
    """
    headings = [heading.rstrip('#').strip() for heading in columns.values()]
    lines = [[_cell(row.get(key), heading.endswith('#')) for key, heading in columns.items()] for row in rows]
    text = [i for i, key in enumerate(columns) if any(isinstance(row.get(key), str) for row in rows)]
    return reports.table(headings, lines, text)


def _cell(value: float | str | None, whole: bool) -> str:
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(value):
        return '–'
    return f'{value:.0f}' if whole else f'{value:.3f}'


@dataclass(frozen=True)
class Panel:
    """Curves in one pair of axes; the vertical axis goes from 0 to 1."""

    title: str
    x: str
    """Label of the horizontal axis."""
    limits: tuple[float, float]
    """Of the horizontal axis."""
    curves: Mapping[str, Curve]
    """By name, x values and y values."""


@dataclass(frozen=True)
class Report:
    """The files of one evaluation: NAME.md, NAME.json and plots."""

    name: str
    images: str
    """Description of what is measured."""
    methods: Sequence[Method]
    output: Path
    """Folder; made if it is missing."""

    def plot(self, name: str, y: str, panels: Sequence[Panel], marker: str = '') -> None:
        """Write NAME.png: panels side by side with one vertical axis; curves of one name have one color."""
        labels = list(dict.fromkeys(label for panel in panels for label in panel.curves))
        colors = dict(zip(labels, mpl.color_sequences['tab10'] * (len(labels) // 10 + 1), strict=False))
        figure = Figure(figsize=(5.2 * len(panels), 4.4), layout='constrained')
        for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
            for label, (horizontal, vertical) in panel.curves.items():
                axes.plot(horizontal, vertical, marker=marker, label=label, color=colors[label], linewidth=1.6)
            axes.set(title=panel.title, xlabel=panel.x, xlim=panel.limits, ylim=(0, 1.02))
            axes.grid(color='0.9', linewidth=0.8)
            axes.spines[['top', 'right']].set_visible(False)
        figure.axes[0].set_ylabel(y)
        # A panel may lack some curves.
        handles = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
        figure.axes[-1].legend(handles=list(handles.values()), loc='best', frameon=False)
        with written_whole(self.output / f'{name}.png') as partial:
            figure.savefig(partial, dpi=130)

    def finish(self, title: str, sections: Sequence[str], data: Mapping[str, Any], failed: Iterable[str] = ()) -> str:
        """Write and return the report, NAME.md, of sections in Markdown; all measurements go to NAME.json.

        Numbers that are not finite become null. `failed` has a sentence for each image that could not be read.

        Raises:
            ValueError: some images could not be read; the report of the others has been written.
        """
        about = {method.name: method.about for method in self.methods}
        what = {text: ', '.join(name for name in about if about[name] == text) for text in about.values()}
        preamble = '\n'.join([f'- Images: {self.images}', *(f'- {names}: {text}' for text, names in what.items())])
        failed = list(dict.fromkeys(failed))
        if failed:
            sections = [*sections, 'These could not be read and are in none of the figures:']
            sections.append('\n'.join(f'- {sentence}' for sentence in failed))
        markdown = '\n\n'.join([f'# {title}', preamble, *sections]) + '\n'
        everything = {'images': self.images, 'methods': about, **data, 'failed': failed}
        reports.write(self.output, self.name, markdown, everything)
        if failed:
            where = self.output / f'{self.name}.md'
            raise ValueError(f'{len(failed)} could not be read, the others are in {where}:\n' + '\n'.join(failed))
        return markdown
