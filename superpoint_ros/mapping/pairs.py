"""Which pairs of images are matched."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from superpoint_ros import image_files

Pair = tuple[str, str]


def chooser(how: str, names: Sequence[str], overlap: int) -> Callable[[Sequence[str]], list[Pair]]:
    """A function that gives the pairs to match out of some of the named images, the good ones.

    The choice is 'exhaustive', 'sequential' or, as from_file takes it, the path of a file.

    Raises:
        ValueError: see from_file.
    """
    if how == 'exhaustive':
        return exhaustive
    if how == 'sequential':
        return partial(sequential, overlap=overlap)
    listed = from_file(Path(how), names)
    return lambda good: [pair for pair in listed if set(pair) <= set(good)]


def exhaustive(names: Sequence[str]) -> list[Pair]:
    """Every image with every other."""
    return list(itertools.combinations(names, 2))


def sequential(names: Sequence[str], overlap: int) -> list[Pair]:
    """Every image with the next `overlap` images of its folder, in the order of image_files.by_number."""
    folders: dict[PurePosixPath, list[str]] = {}
    for name in sorted(names, key=image_files.by_number):
        folders.setdefault(PurePosixPath(name).parent, []).append(name)
    return [
        (name, other)
        for images in folders.values()
        for index, name in enumerate(images)
        for other in images[index + 1 : index + 1 + overlap]
    ]


def from_file(path: Path, names: Sequence[str]) -> list[Pair]:
    """The pairs of a text file: two image names a line, as in COLMAP and hloc; further fields are ignored.

    Raises:
        ValueError: the file cannot be read, has no pairs, or names an image that is not in `names`.
    """
    known, pairs = set(names), dict[Pair, None]()
    for number, fields in read_lines(path):
        if fields[0].startswith('#'):
            continue
        unknown = [name for name in fields[:2] if name not in known]
        if len(fields) < 2 or unknown or fields[0] == fields[1]:
            wrong = f'there is no image {unknown[0]}' if unknown else 'expected the names of two images'
            raise ValueError(f'{path}, line {number}: {wrong}')
        if (fields[1], fields[0]) not in pairs:
            pairs[fields[0], fields[1]] = None
    if not pairs:
        raise ValueError(f'{path}: no pairs; expected lines with the names of two images')
    return list(pairs)


def read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """The numbers and fields of the lines of a list of pairs that are not empty.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f'{path}: cannot be read as a list of pairs ({error})') from error
    return [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
