"""Attacks targets with generated bad input: python -m test.fuzz images clouds --seconds 60 --seed 1."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from test.fuzz.runner import TARGETS, run


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
    unknown = set(arguments.targets) - set(TARGETS)
    if unknown:
        parser.error(f'unknown targets: {", ".join(sorted(unknown))}; expected some of {", ".join(TARGETS)}')
    replay = arguments.replay.read_bytes() if arguments.replay else None
    faults = 0
    for target in arguments.targets or TARGETS:
        summary = run(target, arguments.seconds, arguments.seed, arguments.most, replay, arguments.save)
        print(summary, flush=True)
        faults += len(summary.faults)
    return bool(faults)


if __name__ == '__main__':
    raise SystemExit(main())
