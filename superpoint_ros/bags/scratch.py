"""The folder NAME.partial for the work on an output: one run uses it at a time, and deletes only its own files."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from superpoint_ros.bags.report import Outcome
from superpoint_ros.files import move

_OWN = re.compile(r'lock|\.?(job|outcome)\..*|(segment-\d{6}|recovered|recovered_images)(\..*)?|output')
"""Names of the files and folders that runs create."""


def scratch_of(target: Path) -> Path:
    """The folder for the work on an output."""
    return target.with_name(target.name + '.partial')


def claim(target: Path, resume: bool) -> BaseFileLock:
    """Create the folder for the work on an output, and lock it until the lock is released or the process ends.

    Raises:
        BlockingIOError: another run works on it.
        FileExistsError: there is an unfinished run, and resume is false.
        ValueError: there is a folder of this name that does not belong to a run.
    """
    scratch = scratch_of(target)
    scratch.mkdir(exist_ok=True)
    if foreign := sorted(path.name for path in scratch.iterdir() if not _OWN.fullmatch(path.name)):
        raise ValueError(f'{scratch} has files that do not belong to an unfinished run ({foreign[0]}): move them away')
    lock = FileLock(scratch / 'lock')
    try:
        lock.acquire(timeout=0)
        if not (scratch / 'lock').exists():  # the other run has just finished
            raise FileNotFoundError
    except (FileNotFoundError, Timeout):
        raise BlockingIOError(f'another run is writing {target}') from None
    if resumable(target) and not resume:
        lock.release()
        raise FileExistsError(f'{scratch} is an unfinished run: continue it with --resume, or delete it')
    return lock


def resumable(target: Path) -> bool:
    """Whether a run on this output can be continued."""
    return (scratch_of(target) / 'job.json').exists()


def clear(target: Path) -> None:
    """Delete everything that runs created in the folder but the lock."""
    for path in list(scratch_of(target).glob('*')):
        if path.name != 'lock' and _OWN.fullmatch(path.name):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def discard(target: Path) -> None:
    """Delete the folder, except files of others."""
    scratch = scratch_of(target)
    # If the deletion is killed, the rest is no unfinished run: the next run deletes it.
    for name in ('outcome.json', 'job.json'):
        (scratch / name).unlink(missing_ok=True)
    clear(target)
    (scratch / 'lock').unlink(missing_ok=True)
    with suppress(OSError):
        scratch.rmdir()


def write_outcome(target: Path, outcome: Outcome) -> None:
    """Keep the outcome of a run until it is reported."""
    write_json(scratch_of(target) / 'outcome.json', outcome)


def write_json(path: Path, value: Any) -> None:
    """Write a file that is on the disk, and complete, when it gets its name."""
    partial = path.with_name(f'.{path.name}')
    partial.write_text(json.dumps(value))
    move(partial, path)


def read_outcome(target: Path) -> Outcome | None:
    """The outcome of a run that was killed before it was reported; None if there is none."""
    path = scratch_of(target) / 'outcome.json'
    return Outcome(*json.loads(path.read_text())) if path.exists() else None
