"""Bags with changed bytes or files, of all formats, for `superpoint bag`."""

from __future__ import annotations

import os
import random
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader

from superpoint_ros.bags.report import LONGEST
from test.bags.conftest import Recorder, single_files
from test.fuzz.processes import Isolated
from test.fuzz.runner import NUMBERS, FaultError

MODEL = 'unsuperpoint_lite'
MAX_SECONDS = 120
MAX_MEGABYTES = 1500
"""What an attempt may take. The readers take up to some 256 MiB for a record, and a copy or two of it."""

BAGS = {
    **single_files(8),
    'folder-mcap': lambda record: record.ros2('bag', 8),
    'folder-sqlite3': lambda record: record.ros2('bag', 8, 'sqlite3'),
    'folder-mcap-file': lambda record: record.ros2('bag', 8, compression='FILE'),
    'folder-sqlite3-message': lambda record: record.ros2('bag', 8, 'sqlite3', 'MESSAGE'),
}


def attacks(seed: int) -> Iterator[bytes]:
    """Seeds of mutations."""
    return (f'{seed} {number}'.encode() for number in count())


@contextmanager
def target(folder: Path) -> Iterator[Callable[[bytes], tuple[bool, float]]]:
    """A process that runs the command on each mutated bag."""
    for kind, make in BAGS.items():
        (folder / kind).mkdir()
        path = make(Recorder(folder / kind))
        (folder / f'{kind}.path').write_text(str(path))
    with Isolated(process, folder, MAX_SECONDS, MAX_MEGABYTES) as attack:
        yield attack


def process(data: bytes, folder: Path) -> bool:
    """Mutate a bag and extract its features; returns whether there are any."""
    from superpoint_ros.bags import run as bags_run
    from superpoint_ros.commands.bag import bag

    extractor = _extractor()
    bags_run.Extractor = lambda *_, **__: extractor
    rng = random.Random(data.decode())
    kind = rng.choice(sorted(BAGS))
    work = folder / 'work'
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    original = Path((folder / f'{kind}.path').read_text())
    path = work / original.name
    (shutil.copytree if original.is_dir() else shutil.copy)(original, path)
    changes = mutate(path, rng)
    options = {name: rng.random() < 0.3 for name in ('match', 'track', 'copy')}
    errors = StringIO()
    try:
        with redirect_stderr(errors):
            good = bag([path], output=work / 'out', model=MODEL, **options)
        return _check(good, errors.getvalue(), work / 'out')
    except Exception as error:
        raise FaultError(f'{kind}, {", ".join(changes)}: {type(error).__name__}: {error}') from error


@cache
def _extractor() -> Any:
    """An extractor that is loaded once."""
    from superpoint_ros.extractor import Extractor

    return Extractor(MODEL, backend='openvino', threads=1)


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


def _check(good: bool, report: str, output: Path) -> bool:
    """Compare the report of a run with its output; returns whether it has features."""
    if 'Traceback' in report:
        raise FaultError(report)
    left = [path for path in output.iterdir() if path.name.startswith('.') or path.name.endswith('.partial')]
    if left:
        raise FaultError(f'{left[0].name} is left: {report}')
    found = re.search(r': features of (\d+) images', report)
    if not found:
        raise FaultError(f'no report: {report}')
    count, outputs = int(found[1]), list(output.iterdir())
    problems = [line for line in report.splitlines() if line.startswith('  ')]
    if good != (not problems):
        raise FaultError(f'the exit code does not fit the report: {report}')
    if any(len(line) > LONGEST + 3 or not line.isprintable() for line in problems):
        raise FaultError(f'a problem is not one line of text: {report}')
    if not outputs:
        if count or not problems:
            raise FaultError(f'no output: {report}')
        return False
    with AnyReader([outputs[0]]) as reader:
        clouds = sum(1 for c, _, _ in reader.messages() if c.topic.endswith('features'))
    if clouds != count:
        raise FaultError(f'{clouds} clouds, but {report}')
    return count > 0
