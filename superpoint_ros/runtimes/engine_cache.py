"""Keeps TensorRT engines, which take minutes to build, on disk under keys of everything that they depend on.

An engine is code: it is loaded only from a folder that nobody else can write to. One that does not load is built again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import filelock
import platformdirs

from superpoint_ros.files import written_whole
from superpoint_ros.runtimes import Watch

logger = logging.getLogger(__name__)

T = TypeVar('T')

Facts = Mapping[str, object]


class EngineError(RuntimeError):
    """TensorRT failed."""


class BuildCancelledError(EngineError):
    """A build was cancelled."""


def obtain(name: str, facts: Facts, build: Callable[[], bytes], load: Callable[[bytes], T], watch: Watch) -> T:
    """Load the engine that was kept for some facts, or build and keep one; of several processes only one builds it.

    Args:
        name: readable part of the file name.
        facts: everything that the engine depends on; written beside it as JSON.
        build: builds and checks an engine.
        load: loads one; raises EngineError if it cannot.
        watch: can cancel waiting for another process.

    Raises:
        EngineError: what `build` or, for a new engine, `load` raises.
    """
    path = path_of(name, facts)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(path.parent)
    except OSError as error:
        logger.warning('engines are not kept, each start builds them again: %s', error)
        return load(build())
    with _locked(path.with_suffix('.lock'), watch):
        if path.exists():
            try:
                _check_private(path)
                return load(path.read_bytes())
            except (OSError, EngineError) as error:
                logger.warning('%s is not used but built again: %s', path, error)
        plan = build()
        try:
            for target, content in ((path.with_suffix('.json'), json.dumps(facts, indent=2).encode()), (path, plan)):
                with written_whole(target) as partial:
                    partial.write_bytes(content)
                    partial.chmod(0o600)
        except OSError as error:
            logger.warning('the engine is not kept, the next start builds it again: %s', error)
        return load(plan)


def path_of(name: str, facts: Facts) -> Path:
    """Where an engine is kept: in the user's cache folder, which $XDG_CACHE_HOME can change."""
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return platformdirs.user_cache_path('superpoint_ros') / 'engines' / f'{name}-{key[:16]}.engine'


def _check_private(path: Path) -> None:
    """Raise PermissionError if others than the user (or root) can have written a file or folder."""
    status = path.stat()
    if status.st_uid not in (os.getuid(), 0) or status.st_mode & 0o022:
        raise PermissionError(
            f'{path}: others can write to it, and engines are code; make it yours alone with chown and chmod go-w'
        )


@contextmanager
def _locked(path: Path, watch: Watch) -> Iterator[None]:
    """Hold a lock file; go on without it where files cannot be locked.

    Raises:
        BuildCancelledError: the watch cancelled waiting for another process.
    """
    lock = filelock.FileLock(path)
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0.5)
        except filelock.Timeout as error:
            if watch.cancel.is_set():
                raise BuildCancelledError('cancelled while another process was building the engine') from error
        except (OSError, NotImplementedError) as error:
            logger.warning('%s cannot be locked, so several processes may build the same engine: %s', path, error)
            break
    try:
        yield
    finally:
        lock.release()
