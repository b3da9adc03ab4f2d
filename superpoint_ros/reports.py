"""Reports as Markdown and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from superpoint_ros.files import written_whole


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """A Markdown table; the columns `left` are aligned to the left, the others to the right."""
    alignments = ['---' if column in left else '---:' for column in range(len(headings))]
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in (headings, alignments, *rows))


def write(folder: Path, name: str, markdown: str, data: Mapping[str, Any]) -> None:
    """Write NAME.md and NAME.json; numbers that are not finite become null in the JSON."""
    text = json.dumps(_finite(data), indent=1, ensure_ascii=False, allow_nan=False)
    for suffix, content in (('.md', markdown), ('.json', text)):
        with written_whole(folder / f'{name}{suffix}') as path:
            path.write_bytes(content.encode(errors='backslashreplace'))  # names of files need not be UTF-8


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
