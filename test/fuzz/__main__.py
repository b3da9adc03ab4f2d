"""Attacks targets with generated bad input: python -m test.fuzz images clouds --seconds 60 --seed 1."""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import hypothesis

from test.fuzz import bags, command_lines, control, models, topics
from test.fuzz.attacks import FaultError

TARGETS = topics.TARGETS | control.TARGETS | models.TARGETS | command_lines.TARGETS | bags.TARGETS


@dataclass
class Summary:
    """Results of the attacks on a target: lines for each fault, most memory of an attack, and time of the slowest."""

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
    """Attack a target for a time, and at most so often; `save` is the folder for the attacks that find a fault.

    `replay` is the only attack, in place of those drawn from the seed.
    """
    summary = Summary(name)
    attacks = draw(name, seed) if replay is None else iter([replay])
    with tempfile.TemporaryDirectory() as folder, TARGETS[name].start(Path(folder)) as attack:
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
                    path = save / f'{name}.{seed}.{number}'
                    path.write_bytes(data)
                    summary.faults[-1] += f'\n  replay: python -m test.fuzz {name} --replay {path}'
                continue
            summary.processed += processed
            summary.refused += not processed
            summary.megabytes = max(summary.megabytes, megabytes)
            summary.seconds = max(summary.seconds, time.monotonic() - began)
    return summary


def draw(name: str, seed: int) -> Iterator[bytes]:
    """Endless attacks on a target, the same for the same seed."""
    drawn: list[bytes] = []
    phases, checks = [hypothesis.Phase.generate], list(hypothesis.HealthCheck)
    settings = hypothesis.settings(
        max_examples=20, database=None, deadline=None, phases=phases, suppress_health_check=checks
    )
    collect = settings(hypothesis.given(TARGETS[name].attacks)(lambda data: drawn.append(data)))
    for batch in count():
        hypothesis.seed(f'{seed} {batch}')(collect)()
        yield from drawn
        drawn.clear()


def main() -> int:
    """Run from the command line; returns 1 if there was a fault."""
    # A shell that starts this in the background has SIGINT ignored, by this and by what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(prog='python -m test.fuzz', description=__doc__)
    parser.add_argument('targets', nargs='*', metavar='target', help=f'of {", ".join(TARGETS)}; all if none is named')
    parser.add_argument('--seconds', type=float, default=60, help='for each target')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--most', type=int, help='most attacks on each target')
    parser.add_argument('--save', type=Path, default=Path('fuzz'), help='folder for attacks that find a fault')
    parser.add_argument('--replay', type=Path, help='file of an attack to repeat')
    arguments = parser.parse_args()
    if unknown := sorted({*arguments.targets} - {*TARGETS}):
        parser.error(f'unknown targets: {", ".join(unknown)}; expected some of {", ".join(TARGETS)}')
    replay = arguments.replay.read_bytes() if arguments.replay else None
    faults = 0
    for target in arguments.targets or TARGETS:
        summary = run(target, arguments.seconds, arguments.seed, arguments.most, replay, arguments.save)
        print(summary, flush=True)
        faults += len(summary.faults)
    return bool(faults)


if __name__ == '__main__':
    raise SystemExit(main())
