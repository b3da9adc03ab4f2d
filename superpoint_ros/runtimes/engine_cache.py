"""Engines that took minutes to build are kept on disk, each under a key of all that it depends on.

An engine is code: it is taken only from a folder that nobody else can write to. It is never trusted to be whole or to
fit: what does not load, or does not give what it should, is built again.
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
    """TensorRT did not do what it was asked for."""


class BuildCancelledError(EngineError):
    """The build was ended early, because that was asked for."""


def obtain(name: str, facts: Facts, build: Callable[[], bytes], use: Callable[[bytes], T], watch: Watch) -> T:
    """A kept engine, or else a new one, which is then kept. Of several processes only one builds at a time.

    Args:
        name: of the files, for people.
        facts: all that the engine depends on; written beside it in clear text.
        build: makes an engine.
        use: loads and checks one; raises EngineError if it is no good.
        watch: can end the waiting for another process.

    Raises:
        EngineError: what `build` or, for a newly built engine, `use` raises.
    """
    path = path_of(name, facts)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(path.parent)
    except OSError as error:
        logger.warning('engines are not kept, each start will build them: %s', error)
        return use(build())
    bad = b''
    plan = _read(path, facts)
    if plan:
        try:
            return use(plan)
        except EngineError as error:
            logger.warning('%s is no good, building it again: %s', path, error)
            bad = plan
    with _alone(path.parent, watch):
        plan = _read(path, facts)
        if plan and plan != bad:  # another process built it meanwhile
            return use(plan)
        plan = build()
        engine = use(plan)
        _write(path, plan, facts)
    return engine


def path_of(name: str, facts: Facts) -> Path:
    """Where an engine is kept: in the user's cache folder, which $XDG_CACHE_HOME can set."""
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return platformdirs.user_cache_path('superpoint_ros') / 'engines' / f'{name}-{key[:16]}.engine'


def _check_private(path: Path) -> None:
    """Check that nobody but the user (and root) could have written this.

    Raises:
        PermissionError: somebody could.
    """
    status = path.stat()
    if status.st_uid not in (os.getuid(), 0) or status.st_mode & 0o022:
        raise PermissionError(
            f'{path}: others may write to it, and engines are code; it must be yours alone: chmod go-w, chown'
        )


def _read(path: Path, facts: Facts) -> bytes:
    """A kept engine; empty if there is none, or none that is whole and for these facts."""
    note = path.with_suffix('.json')
    if not note.exists():
        return b''
    try:
        _check_private(path)
        plan = path.read_bytes()
        wanted = {**facts, 'sha256': hashlib.sha256(plan).hexdigest()}
        if json.loads(note.read_bytes()) != json.loads(json.dumps(wanted)):
            raise ValueError('it is not the engine that the .json file beside it describes')
    except (OSError, ValueError) as error:
        logger.warning('%s is not used: %s', path, error)
        return b''
    return plan


def _write(path: Path, plan: bytes, facts: Facts) -> None:
    note = {**facts, 'sha256': hashlib.sha256(plan).hexdigest()}
    try:
        # The note comes last: without it there is no engine.
        for target, content in ((path, plan), (path.with_suffix('.json'), json.dumps(note, indent=2).encode())):
            with written_whole(target) as partial:
                partial.write_bytes(content)
                partial.chmod(0o600)
    except OSError as error:
        logger.warning('the engine is not kept, the next start will build it again: %s', error)


@contextmanager
def _alone(folder: Path, watch: Watch) -> Iterator[None]:
    """Holds the folder's lock, if it can be locked.

    Raises:
        BuildCancelledError: while another process held it.
    """
    lock = filelock.FileLock(folder / 'building.lock')
    waiting = False
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0.5)
        except filelock.Timeout as error:
            if watch.cancel.is_set():
                raise BuildCancelledError('cancelled while another process was building an engine') from error
            if not waiting:
                logger.info('another process is building an engine; waiting for it')
                waiting = True
        except (OSError, NotImplementedError) as error:
            logger.warning('%s cannot be locked, two processes might build the same engine: %s', folder, error)
            break
    try:
        yield
    finally:
        lock.release()
