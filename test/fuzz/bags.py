"""Bags with changed bytes or files, of all formats, for `superpoint bag`."""

from __future__ import annotations

import os
import random
import re
import shutil
import tempfile
from contextlib import redirect_stderr
from functools import cache, partial
from io import StringIO
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from rosbags.highlevel import AnyReader

from superpoint_ros import models
from superpoint_ros.bags.report import LONGEST
from test.bags.conftest import Recorder, single_files
from test.fuzz.attacks import FaultError, Target, mutate
from test.fuzz.processes import isolated

BAGS = {
    **single_files(8),
    'folder-mcap': lambda record: record.ros2('bag', 8),
    'folder-sqlite3': lambda record: record.ros2('bag', 8, 'sqlite3'),
    'folder-mcap-file': lambda record: record.ros2('bag', 8, compression='FILE'),
    'folder-sqlite3-message': lambda record: record.ros2('bag', 8, 'sqlite3', 'MESSAGE'),
}


@cache
def _recorded(kind: str, folder: Path) -> Path:
    """A good bag, which is recorded once."""
    return BAGS[kind](Recorder(Path(tempfile.mkdtemp(dir=folder))))


def process(seed: bytes, folder: Path) -> bool:
    """Change a bag and extract its features; returns whether there are any."""
    from superpoint_ros.bags import run as bags_run
    from superpoint_ros.commands.bag import bag

    extractor = _extractor()
    bags_run.Extractor = lambda *_, **__: extractor
    rng = random.Random(seed)
    kind = rng.choice(sorted(BAGS))
    work = folder / 'work'
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    original = _recorded(kind, folder)
    path = work / original.name
    (shutil.copytree if original.is_dir() else shutil.copy)(original, path)
    _change_bag(path, rng)
    options = {name: rng.random() < 0.3 for name in ('match', 'track', 'copy')}
    errors = StringIO()
    try:
        with redirect_stderr(errors):
            good = bag([path], output=work / 'out', model=models.DEFAULT, **options)
        return _check(good, errors.getvalue(), work / 'out')
    except Exception as error:
        raise FaultError(f'{kind}: {type(error).__name__}: {error}') from error


@cache
def _extractor() -> Any:
    """An extractor that is loaded once."""
    from superpoint_ros.extractor import Extractor

    return Extractor(models.DEFAULT, backend='openvino', threads=1)


def _change_bag(bag: Path, rng: random.Random) -> None:
    """Change the files of a bag, and sometimes its folder."""
    if bag.is_dir() and rng.random() < 0.2:
        _change_folder(bag, rng)
    for _ in range(rng.randint(1, 4)):
        files = [path for path in sorted(bag.iterdir()) if path.is_file()] if bag.is_dir() else [bag]
        if files:
            path = rng.choice(files)
            path.write_bytes(mutate(path.read_bytes(), rng))


def _change_folder(bag: Path, rng: random.Random) -> None:
    """Copy a file, remove it, or put a pipe, a folder or a dangling link in its place."""
    path = rng.choice(sorted(bag.iterdir()))
    if rng.random() < 0.2:
        shutil.copy(path, bag / f'z{path.name}')
        return
    path.unlink()
    replace = rng.choice([lambda: None, lambda: os.mkfifo(path), path.mkdir, lambda: path.symlink_to('nowhere')])
    replace()


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


TARGETS = {'bags': Target(st.binary(min_size=8, max_size=8), partial(isolated, process))}
