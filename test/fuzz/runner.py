"""Draws attacks, tries them on a target, and counts the results.

A module of this folder is a target if it has two functions. `attacks(seed)` yields bytes: the serialized message, file
or command that is tried, so that it can be saved and replayed. `target(folder)` is a context manager that gives a
function, which tries these bytes and returns whether they were processed (True) or refused (False), and the memory in
MB that this took. It raises FaultError for anything else.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st

TARGETS = (
    'images',
    'compressed_images',
    'clouds',
    'features_info',
    'camera_infos',
    'parameters',
    'lifecycle',
    'signals',
    'models',
    'command_lines',
    'bags',
)
BATCH = 20
NUMBERS = [0, 1, 255, 4096, 2**16, 2**28, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1]


class FaultError(Exception):
    """Bad input did what it must not do."""


@dataclass
class Summary:
    """What came of the attacks on a target.

    Args:
        target: its name.
        tried: number of attacks.
        refused: attacks that were refused in one sentence.
        processed: attacks that were processed.
        faults: a line for each attack that ended in any other way.
        megabytes: most memory of an attack.
        seconds: time of the slowest attack.
    """

    target: str
    tried: int = 0
    refused: int = 0
    processed: int = 0
    faults: list[str] = field(default_factory=list)
    megabytes: float = 0
    seconds: float = 0

    def __str__(self) -> str:
        head = (
            f'{self.target}: {self.tried} tried, {self.refused} refused, {self.processed} processed, '
            f'{len(self.faults)} faults; at most {self.megabytes:.0f} MB and {self.seconds:.1f} s'
        )
        return '\n'.join([head, *self.faults])


def run(
    name: str, seconds: float, seed: int, most: int | None = None, replay: bytes | None = None, save: Path | None = None
) -> Summary:
    """Attack a target until the time or the number of attacks is reached.

    Args:
        name: one of TARGETS.
        seconds: for all attacks.
        seed: of the attacks.
        most: most attacks; None for no limit.
        replay: the only attack, in place of those drawn from the seed.
        save: folder for the attacks that found a fault.
    """
    module, summary = importlib.import_module(f'test.fuzz.{name}'), Summary(name)
    attacks = module.attacks(seed) if replay is None else iter([replay])
    with tempfile.TemporaryDirectory() as folder, module.target(Path(folder)) as attack:
        deadline = time.monotonic() + seconds
        for number, data in enumerate(attacks):
            if time.monotonic() > deadline or number == most:
                break
            began, summary.tried = time.monotonic(), summary.tried + 1
            try:
                processed, megabytes = attack(data)
            except FaultError as fault:
                summary.faults.append(f'  attack {number} of seed {seed}: {fault}')
                if save:
                    save.mkdir(parents=True, exist_ok=True)
                    (save / f'{name}.{seed}.{number}').write_bytes(data)
                    summary.faults[-1] += (
                        f'\n  replay: python -m test.fuzz {name} --replay {save}/{name}.{seed}.{number}'
                    )
                continue
            summary.processed += processed
            summary.refused += not processed
            summary.megabytes = max(summary.megabytes, megabytes)
            summary.seconds = max(summary.seconds, time.monotonic() - began)
    return summary


def draw(strategy: st.SearchStrategy[bytes], seed: int) -> Iterator[bytes]:
    """Endless examples of a strategy, the same for the same seed."""
    drawn: list[bytes] = []
    settings = hypothesis.settings(
        max_examples=BATCH,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    for batch in count():
        hypothesis.seed(f'{seed} {batch}')(settings(hypothesis.given(strategy)(lambda data: drawn.append(data))))()
        yield from drawn
        drawn.clear()


def headers() -> st.SearchStrategy[Any]:
    """Strategy of std_msgs/Header."""
    from builtin_interfaces.msg import Time
    from std_msgs.msg import Header

    stamps = st.builds(Time, sec=st.integers(-(2**31), 2**31 - 1), nanosec=st.integers(0, 2**32 - 1))
    return st.builds(Header, stamp=stamps, frame_id=st.sampled_from(['camera', '', 'x' * 10**5]) | st.text())


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes], most: int = 4) -> bytes:
    """Strategy of byte strings with up to `most` changes: cut, inserted, repeated or other bytes."""
    data = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, len(data)) | st.integers(0, min(len(data), 200)))
        length = draw(st.sampled_from([0, 1, 4, 8, 64, len(data)]))
        number = st.sampled_from(NUMBERS).map(lambda n: n.to_bytes(8, 'little'))
        new = draw(st.binary(max_size=8) | number | number.map(lambda n: n[:4]) | st.just(data[at : at + length] * 2))
        data = data[:at] + new + data[at + length :]
    return data
