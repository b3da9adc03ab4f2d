"""Reports the results of a bag."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rich.console import Console

SHOWN = 10
"""Number of problems of each kind that are listed for a bag; the others are counted."""

LONGEST = 500
"""Maximum length of a listed problem, in characters."""


class Outcome(NamedTuple):
    """The number of images with features in a bag, and a sentence for each problem."""

    frames: int
    problems: list[str]


def shortened(problems: list[str], count: int) -> list[str]:
    """The first of `count` problems, and the number of the others."""
    return problems[:SHOWN] + ([f'… and {count - SHOWN} more like these'] if count > SHOWN else [])


def report(console: Console, bag: Path, outcome: Outcome | None) -> None:
    """Print the outcome for a bag; None if an earlier run has finished it."""
    result = f'features of {outcome.frames} images' if outcome else 'done before'
    console.print(printable(f'{bag}: {result}'), markup=False)
    for problem in outcome.problems if outcome else ():
        console.print(f'  {printable(problem)}', markup=False, style='red')


def printable(text: str) -> str:
    """Text without control characters and undecodable bytes of file names, and not too long."""
    safe = ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text[:LONGEST])
    return safe if len(text) <= LONGEST and len(safe) <= LONGEST else f'{safe[:LONGEST]}…'
