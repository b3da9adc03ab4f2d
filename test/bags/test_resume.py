"""Runs that are killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from superpoint_ros.bags import job
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.extractor import Extractor

from .conftest import contents

FRAMES = 80


@pytest.fixture
def short_segments(monkeypatch):
    monkeypatch.setattr(job, 'SEGMENT_FRAMES', 8)


def start_slowly(bag, out, model, **options):
    """Run the command in its own process, at about 100 images a second."""
    program = f"""
        import time
        from pathlib import Path
        from superpoint_ros.bags import job
        from superpoint_ros.commands.bag import bag
        from superpoint_ros.extractor import Extractor
        from superpoint_ros.runtimes import RuntimeConfig

        extract = Extractor.batch
        def slow(self, images):
            time.sleep(0.01 * len(images))
            return extract(self, images)
        Extractor.batch = slow
        job.SEGMENT_FRAMES = 8
        runtime = RuntimeConfig(backend='openvino', threads=1)
        bag([Path({str(bag)!r})], output=Path({str(out)!r}), model={str(model)!r}, runtime=runtime, **{options!r})
    """
    return subprocess.Popen([sys.executable, '-c', textwrap.dedent(program)])


def kill_when(process, reached):
    deadline = time.monotonic() + 60
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.poll() is None, 'the run ended before it could be killed'
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def counted(monkeypatch):
    """A list of the images that went through an extractor."""
    seen, extract = [], Extractor.batch

    def batch(self, images):
        seen.extend(images)
        return extract(self, images)

    monkeypatch.setattr(Extractor, 'batch', batch)
    return seen


@pytest.mark.parametrize('segments', [0, 1, 5])
def test_a_killed_run_is_resumed_where_it_stopped(segments, record, run, tiny_model, tmp_path, short_segments, counted):
    bag = record.ros1('drive', FRAMES)
    options = {'match': True, 'track': True, 'copy': True}
    assert run(bag, **options)
    expected = contents(tmp_path / 'out/drive')
    (tmp_path / 'out/drive').rename(tmp_path / 'uninterrupted')
    counted.clear()

    scratch = tmp_path / 'out/drive.partial'
    done = lambda: len(list(scratch.glob('segment-??????')))  # noqa: E731
    begun = lambda: (scratch / 'job.json').exists() and done() >= segments  # noqa: E731
    kill_when(start_slowly(bag, tmp_path / 'out', tiny_model, **options), begun)
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['drive.partial']
    before = done()
    assert before >= segments

    assert run(bag, resume=True, **options)
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['drive']
    assert contents(tmp_path / 'out/drive') == expected
    assert len(counted) <= FRAMES - before * 7  # segments are cut by time, so not all have 8
    assert len(counted) >= FRAMES - (before + 1) * 9


def test_a_run_does_not_continue_another_one(record, run, tiny_model, tmp_path, short_segments, capfd):
    bag = record.ros1('drive', FRAMES)
    scratch = tmp_path / 'out/drive.partial'
    kill_when(start_slowly(bag, tmp_path / 'out', tiny_model), lambda: any(scratch.glob('segment-*')))
    assert not run(bag)
    assert 'continue it with --resume' in capfd.readouterr().err
    assert not run(bag, resume=True, decode=DecodeConfig(max_keypoints=5))
    assert 'another options' in capfd.readouterr().err
    os.utime(bag, (0, 0))
    assert not run(bag, resume=True)
    assert 'another bag' in capfd.readouterr().err
    assert scratch.exists()


def test_a_run_on_a_damaged_bag_is_resumed(record, run, tmp_path, short_segments, counted, capfd):
    bag = record.mcap('drive', FRAMES)
    data = bytearray(bag.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    bag.write_bytes(data)
    assert not run(bag, copy=True)
    expected = contents(tmp_path / 'out/drive')
    (tmp_path / 'out/drive').rename(tmp_path / 'uninterrupted')
    counted.clear()
    # Fail before a late segment.
    unhurt = Extractor.batch

    def fail_late(self, images):
        if len(counted) > FRAMES * 3 // 4:
            raise OSError('no space left on the disk')
        return unhurt(self, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Extractor, 'batch', fail_late)
        assert not run(bag, copy=True)
    assert 'no space left on the disk; finished segments are in' in capfd.readouterr().err
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['drive.partial']
    assert not run(bag, copy=True, resume=True)
    assert 'drive.mcap' in capfd.readouterr().err
    assert contents(tmp_path / 'out/drive') == expected


def test_the_job_file(record, run, tiny_model, tmp_path, short_segments):
    bag = record.ros1('drive', FRAMES)
    record_file = tmp_path / 'out/drive.partial/job.json'
    kill_when(start_slowly(bag, tmp_path / 'out', tiny_model), record_file.exists)
    facts = json.loads(record_file.read_text())
    assert facts['topics'] == ['/camera/image']
    assert facts['frames'] == FRAMES
    assert len(facts['bounds']) == FRAMES // 8 + 1
