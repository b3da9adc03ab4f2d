"""Writes files and folders so that they appear complete or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MANY_FILES = 100
"""Number of files from which it is faster to write all caches of the system to the disk than each file."""


@contextmanager
def written_whole(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path`, with the same suffix, to write to; it becomes `path` when the block ends well.

    If the block fails, nothing is left behind and an older file at `path` stays. Missing folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.stem}.{os.getpid()}.partial{path.suffix}')
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path` to write to; it becomes `path`, and is on the disk, when the block ends well.

    If the block fails, nothing is left behind. If another process was faster, its folder stays at `path`.
    """
    partial = Path(tempfile.mkdtemp(prefix=f'{path.name}.', dir=path.parent))
    try:
        yield partial
        try:
            move(partial, path)
        except OSError:
            if not path.exists():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder when all of it is on the disk, so that it is complete even if the power fails.

    The new name is on the disk too when this returns.
    """
    files = [Path(folder, name) for folder, _, names in os.walk(source) for name in ('.', *names)] or [source]
    if len(files) > MANY_FILES:
        os.sync()
    else:
        for file in files:
            _sync(file)
    source.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot do this for folders
            raise
    finally:
        os.close(descriptor)
