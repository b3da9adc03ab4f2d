"""Where engines are kept, and which are not trusted."""

import json
import logging
import multiprocessing
import os
import threading
import time

import filelock
import pytest

from superpoint_ros.runtimes import Watch, engine_cache
from superpoint_ros.runtimes.engine_cache import BuildCancelledError, EngineError, obtain, path_of

FACTS = {'tensorrt': '10.3.0', 'shapes': [[1, 1, 480, 640], [1, 1, 480, 640]], 'graph': 'abc'}


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path / 'superpoint_ros' / 'engines'


class Builder:
    """Builds, and counts how often."""

    def __init__(self, plan=b'good'):
        self.plan, self.count = plan, 0

    def __call__(self):
        self.count += 1
        return self.plan


def use(plan):
    if b'bad' in plan:
        raise EngineError('it is bad')
    return plan.upper()


def get(build, facts=FACTS, watch=None):
    return obtain('superpoint', facts, build, use, watch or Watch())


def test_an_engine_is_built_once_and_only_the_user_can_write_it(folder):
    build = Builder()
    assert [get(build), get(build)] == [b'GOOD'] * 2
    assert build.count == 1
    path = path_of('superpoint', FACTS)
    assert path.parent == folder
    assert json.loads(path.with_suffix('.json').read_text()) == FACTS
    assert folder.stat().st_mode & 0o777 == 0o700
    for file in (path, path.with_suffix('.json')):
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    'change', [{'tensorrt': '10.3.1'}, {'graph': 'abd'}, {'shapes': [[1, 1, 480, 640], [2, 1, 480, 640]]}, {'new': 1}]
)
def test_each_fact_is_part_of_the_key(change):
    build = Builder()
    get(build)
    get(build, FACTS | change)
    assert build.count == 2
    assert path_of('superpoint', FACTS) != path_of('superpoint', FACTS | change)


def test_the_order_of_facts_does_not_matter():
    assert path_of('x', FACTS) == path_of('x', dict(reversed(FACTS.items())))


def test_an_engine_that_does_not_load_is_built_again_and_kept_if_that_loads(caplog):
    get(Builder(b'good'))
    path = path_of('superpoint', FACTS)
    path.write_bytes(b'bad')
    build = Builder(b'better')
    assert [get(build), get(build)] == [b'BETTER'] * 2
    assert build.count == 1
    assert 'is not used but built again: it is bad' in caplog.text


@pytest.mark.parametrize('mode', [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_to_is_not_used(folder, mode, caplog):
    build = Builder()
    get(build)
    folder.chmod(mode)
    assert get(build) == b'GOOD'
    assert build.count == 2
    assert 'others can write to it, and engines are code' in caplog.text


def test_a_file_that_others_can_write_to_is_not_used(caplog):
    build = Builder()
    get(build)
    path_of('superpoint', FACTS).chmod(0o666)
    assert get(build) == b'GOOD'
    assert build.count == 2
    assert 'others can write to it' in caplog.text


def test_a_folder_of_another_user_is_not_used(folder, monkeypatch, caplog):
    folder.mkdir(parents=True)
    mine = os.getuid()
    os.chown(folder, 12345, -1) if mine == 0 else monkeypatch.setattr(os, 'getuid', lambda: mine + 1)
    build = Builder()
    assert get(build) == b'GOOD'
    assert 'others can write to it' in caplog.text
    assert not list(folder.iterdir())


def test_engines_are_used_without_a_folder_to_keep_them(tmp_path, monkeypatch, caplog):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    build = Builder()
    assert [get(build), get(build)] == [b'GOOD'] * 2
    assert build.count == 2
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert 'engines are not kept, each start builds them again' in caplog.text


def test_an_engine_that_cannot_be_written_is_used(folder, monkeypatch, caplog):
    def full(path):
        raise OSError(28, 'No space left on device', str(path))

    monkeypatch.setattr(engine_cache, 'written_whole', full)
    assert get(Builder()) == b'GOOD'
    assert 'the engine is not kept' in caplog.text
    assert not list(folder.glob('*.engine'))


def test_engines_are_kept_in_a_folder_that_cannot_be_locked(monkeypatch, caplog):
    def refuse(*args, **kwargs):
        raise OSError(30, 'Read-only file system')

    monkeypatch.setattr(filelock.FileLock, 'acquire', refuse)
    assert get(Builder()) == b'GOOD'
    assert 'cannot be locked' in caplog.text


def test_waiting_for_another_process_can_be_cancelled(folder):
    folder.mkdir(mode=0o700, parents=True)
    watch = Watch()
    with filelock.FileLock(path_of('superpoint', FACTS).with_suffix('.lock')):
        threading.Timer(0.2, watch.cancel.set).start()
        build = Builder()
        with pytest.raises(BuildCancelledError, match='another process'):
            get(build, watch=watch)
    assert build.count == 0


def build_slowly(log):
    def build():
        with log.open('a') as file:
            file.write('built\n')
        time.sleep(1)
        return b'good'

    assert get(build) == b'GOOD'


def test_only_one_of_two_processes_builds(tmp_path):
    log = tmp_path / 'log'
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=build_slowly, args=(log,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert log.read_text() == 'built\n'
