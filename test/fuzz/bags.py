"""Runs `superpoint bag` on mutated bags: python -m test.fuzz.bags --seconds 60 --seed 1."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import shutil
import struct
import tempfile
import time
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from rosbags.highlevel import AnyReader

from superpoint_ros.bags.report import LONGEST
from test.bags.conftest import Recorder

MODEL = 'unsuperpoint_lite'
MAX_SECONDS = 60
MAX_MEGABYTES = 1500
"""What an attempt may take. The readers take up to some 256 MiB for a record, and a copy or two of it."""

BAGS = {
    'ros1': lambda record: record.ros1('bag', 8, chunk=20_000),
    'ros1-lz4': lambda record: record.ros1('bag', 8, 'LZ4', chunk=20_000),
    'ros1-bz2': lambda record: record.ros1('bag', 8, 'BZ2', chunk=20_000),
    'mcap': lambda record: record.mcap('bag', 8, 'NONE'),
    'mcap-zstd': lambda record: record.mcap('bag', 8, 'ZSTD'),
    'mcap-lz4': lambda record: record.mcap('bag', 8, 'LZ4'),
    'sqlite3': lambda record: record.ros2('bag', 8, 'sqlite3') / 'bag.db3',
    'folder-mcap': lambda record: record.ros2('bag', 8),
    'folder-sqlite3': lambda record: record.ros2('bag', 8, 'sqlite3'),
    'folder-mcap-file': lambda record: record.ros2('bag', 8, compression='FILE'),
    'folder-sqlite3-message': lambda record: record.ros2('bag', 8, 'sqlite3', 'MESSAGE'),
}

NUMBERS = [0, 1, 255, 4096, 2**16, 2**28, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1]


@dataclass
class Summary:
    """What came of some attempts.

    Args:
        tried: number of attempts.
        refused: attempts without features, whose reason was reported.
        processed: attempts with features of at least one image.
        unexpected: a line for each attempt that ended in any other way.
        peak: most memory of an attempt in MB.
        slowest: longest attempt in seconds.
    """

    tried: int = 0
    refused: int = 0
    processed: int = 0
    unexpected: list[str] = field(default_factory=list)
    peak: float = 0
    slowest: float = 0

    def __str__(self) -> str:
        head = (
            f'bags: {self.tried} tried, {self.refused} refused, {self.processed} processed, '
            f'{len(self.unexpected)} unexpected; at most {self.peak:.0f} MB and {self.slowest:.1f} s'
        )
        return '\n'.join([head, *self.unexpected])


def run(seconds: float, seed: int, most: int | None = None, first: int = 0) -> Summary:
    """Try mutated bags until the time or the number of attempts is reached.

    Args:
        seconds: for all attempts.
        seed: for the mutations.
        most: most attempts; None for no limit.
        first: number of the first attempt, to repeat one that was unexpected.
    """
    summary, number, deadline = Summary(), first, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bags = {kind: make(Recorder(_made(folder / kind))) for kind, make in BAGS.items()}
        worker = _Worker()
        while time.monotonic() < deadline and (most is None or summary.tried < most):
            rng = random.Random(f'{seed} {number}')
            kind = rng.choice(sorted(bags))
            work = _made(folder / 'work')
            bag = work / bags[kind].name
            (shutil.copytree if bags[kind].is_dir() else shutil.copy)(bags[kind], bag)
            changes = mutate(bag, rng)
            options = {name: rng.random() < 0.3 for name in ('match', 'track', 'copy')}
            result, megabytes, took = worker.process(bag, work / 'out', options)
            summary.tried += 1
            summary.peak, summary.slowest = max(summary.peak, megabytes), max(summary.slowest, took)
            if megabytes > MAX_MEGABYTES:
                result = f'took {megabytes:.0f} MB'
            if result == 'processed':
                summary.processed += 1
            elif result == 'refused':
                summary.refused += 1
            else:
                summary.unexpected.append(f'  attempt {number} of seed {seed}: {kind}, {", ".join(changes)}: {result}')
            shutil.rmtree(work)
            number += 1
        worker.stop()
    return summary


def mutate(bag: Path, rng: random.Random) -> list[str]:
    """Change the files of a bag at random; returns what was changed."""
    changes = []
    if bag.is_dir() and rng.random() < 0.2:
        changes.append(_change_folder(bag, rng))
    for _ in range(rng.randint(1, 4)):
        files = [path for path in sorted(bag.iterdir()) if path.is_file()] if bag.is_dir() else [bag]
        if files:
            path = rng.choice(files)
            data, change = _change(path.read_bytes(), rng)
            path.write_bytes(data)
            changes.append(f'{path.name} {change}')
    return changes


def _change_folder(bag: Path, rng: random.Random) -> str:
    path = rng.choice(sorted(bag.iterdir()))
    change = rng.choice(['removed', 'a pipe', 'a folder', 'a dangling link', 'a copy'])
    if change == 'a copy':
        shutil.copy(path, bag / f'z{path.name}')
        return f'{path.name} copied'
    path.unlink()
    if change == 'a pipe':
        os.mkfifo(path)
    elif change == 'a folder':
        path.mkdir()
    elif change == 'a dangling link':
        path.symlink_to('nowhere')
    return f'{path.name} {change}'


def _change(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A small change of the content of a file, and its description."""
    at = min(_position(data, rng), max(len(data) - 1, 0))
    length = rng.choice([1, 4, 8, 64, 1000])
    piece = data[at : at + length]
    kind = rng.choice(['bit', 'number', 'number', 'number', 'cut', 'remove', 'repeat', 'zeros', 'random', 'move'])
    if kind == 'bit':
        new = data[:at] + bytes(byte ^ 1 << rng.randrange(8) for byte in data[at : at + 1]) + data[at + 1 :]
    elif kind == 'number':
        packed = struct.pack('<Q', rng.choice(NUMBERS))[: rng.choice([1, 2, 4, 8])]
        new = data[:at] + packed + data[at + len(packed) :]
    elif kind == 'cut':
        new = data[:at]
    elif kind == 'remove':
        new = data[:at] + data[at + length :]
    elif kind == 'repeat':
        new = data[:at] + piece * rng.choice([2, 100]) + data[at + length :]
    elif kind == 'zeros':
        new = data[:at] + bytes(length) + data[at + length :]
    elif kind == 'random':
        new = data[:at] + rng.randbytes(length) + data[at + length :]
    else:
        other = _position(data, rng)
        new = data[:other] + piece + data[other + len(piece) :]
    return new, f'{kind} at {at}'


def _position(data: bytes, rng: random.Random) -> int:
    """A position in a file: anywhere, or near something that readers trust, such as a length or an index."""
    near = rng.choice(
        [b'', b'op=', b'size=', b'index_pos=', b'chunk_count=', b'\x05', b'\x06', b'zstd', b'_msgs', b': ']
    )
    found = [match.end() for match in re.finditer(re.escape(near), data)] if near else []
    if found:
        return rng.choice(found) + rng.randrange(12)
    return rng.choice(
        [rng.randrange(max(len(data), 1)), max(len(data) - 1 - rng.randrange(400), 0), rng.randrange(200)]
    )


class _Worker:
    """A process that runs the command, so that memory is measured and a hang can be ended."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context('spawn')
        self._start()

    def _start(self) -> None:
        self._connection, other = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()

    def process(self, bag: Path, output: Path, options: dict[str, bool]) -> tuple[str, float, float]:
        """Returns the result, the memory in MB and the time in seconds."""
        began = time.monotonic()
        self._connection.send((bag, output, options))
        try:
            if self._connection.poll(MAX_SECONDS):
                return (*self._connection.recv(), time.monotonic() - began)
            result = f'did not end in {MAX_SECONDS} s'
        except EOFError:
            self._process.join()
            result = f'ended the process with {self._process.exitcode}'
        self.stop()
        self._start()
        return result, 0, time.monotonic() - began

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _serve(connection: multiprocessing.connection.Connection) -> None:
    """Run the command for each request; the model is loaded once."""
    from superpoint_ros.bags import run as bags_run
    from superpoint_ros.commands.bag import bag

    extractor = bags_run.Extractor(MODEL, backend='openvino', threads=1)
    bags_run.Extractor = lambda *_, **__: extractor
    while True:
        path, output, options = connection.recv()
        Path('/proc/self/clear_refs').write_text('5')  # resets the peak
        errors = StringIO()
        try:
            with redirect_stderr(errors):
                good = bag([path], output=output, model=MODEL, **options)
            result = _check(good, errors.getvalue(), output)
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            result = f'{type(error).__name__}: {error}'
        peak = re.search(r'VmHWM:\s*(\d+)', Path('/proc/self/status').read_text())
        connection.send((result, int(peak[1]) / 1024 if peak else 0))


def _check(good: bool, report: str, output: Path) -> str:
    """Compare the report of a run with its output: processed, refused, or what is wrong."""
    if 'Traceback' in report:
        return report
    left = [path for path in output.iterdir() if path.name.startswith('.') or path.name.endswith('.partial')]
    if left:
        return f'{left[0].name} is left: {report}'
    found = re.search(r': features of (\d+) images', report)
    if not found:
        return f'no report: {report}'
    count, outputs = int(found[1]), list(output.iterdir())
    problems = [line for line in report.splitlines() if line.startswith('  ')]
    if good != (not problems):
        return f'the exit code does not fit the report: {report}'
    if any(len(line) > LONGEST + 3 or not line.isprintable() for line in problems):
        return f'a problem is not one line of text: {report}'
    if not outputs:
        return 'refused' if problems and not count else f'no output: {report}'
    with AnyReader([outputs[0]]) as reader:
        clouds = sum(1 for c, _, _ in reader.messages() if c.topic.endswith('features'))
    if clouds != count:
        return f'{clouds} clouds, but {report}'
    return 'processed' if count else 'refused'


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main() -> int:
    """Run from the command line; returns 1 if anything was unexpected."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=60)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--first', type=int, default=0, help='number of the first attempt')
    parser.add_argument('--most', type=int, help='most attempts')
    arguments = parser.parse_args()
    summary = run(arguments.seconds, arguments.seed, arguments.most, arguments.first)
    print(summary)
    return bool(summary.unexpected)


if __name__ == '__main__':
    raise SystemExit(main())
