"""Runs that are killed and resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from superpoint_ros.bags import job
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.extractor import Extractor

from .conftest import contents, decoded

FRAMES = 80


@pytest.fixture
def short_segments(monkeypatch):
    monkeypatch.setattr(job, 'SEGMENT_FRAMES', 8)


def start_slowly(bag, out, model, before='', **options):
    """Run the command in its own process, at about 100 images a second, after some other lines of Python."""
    program = f"""
        import os, signal, time
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
        {before}
        runtime = RuntimeConfig(backend='openvino', threads=1)
        bag([Path({str(bag)!r})], output=Path({str(out)!r}), model={str(model)!r}, runtime=runtime, **{options!r})
    """
    return subprocess.Popen([sys.executable, '-c', textwrap.dedent(program)])


def wait_for(reached, process=None):
    deadline = time.monotonic() + 60
    while not reached() and not (process and process.poll() is not None) and time.monotonic() < deadline:
        time.sleep(0.002)


def kill_when(process, reached):
    wait_for(reached, process)
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


def stop_early(run, bag, monkeypatch, counted, **options):
    """Run until a late segment fails."""
    unhurt = Extractor.batch

    def fail_late(self, images):
        if len(counted) > FRAMES * 3 // 4:
            raise OSError('no space left on the disk')
        return unhurt(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Extractor, 'batch', fail_late)
        assert not run(bag, **options)
    counted.clear()


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
    model = shutil.copy(tiny_model, tmp_path)
    kill_when(start_slowly(bag, tmp_path / 'out', model), lambda: any(scratch.glob('segment-*')))
    assert not run(bag, model=model)
    assert 'continue it with --resume' in capfd.readouterr().err
    assert not run(bag, model=model, resume=True, decode=DecodeConfig(max_keypoints=5))
    assert 'with different options' in capfd.readouterr().err
    (tmp_path / 'tiny_int8.onnx').touch()  # auto would use it
    assert not run(bag, model=model, resume=True)
    assert 'with different model' in capfd.readouterr().err
    (tmp_path / 'tiny_int8.onnx').unlink()
    os.utime(bag, (0, 0))
    assert not run(bag, model=model, resume=True)
    assert 'with different bag' in capfd.readouterr().err
    assert scratch.exists()


def test_a_run_on_a_damaged_bag_is_resumed(record, run, tmp_path, short_segments, counted, monkeypatch, capfd):
    bag = record.mcap('drive', FRAMES)
    data = bytearray(bag.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    bag.write_bytes(data)
    assert not run(bag, copy=True)
    expected = contents(tmp_path / 'out/drive')
    (tmp_path / 'out/drive').rename(tmp_path / 'uninterrupted')
    counted.clear()
    stop_early(run, bag, monkeypatch, counted, copy=True)
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


@pytest.mark.parametrize('resume', [True, False])
def test_two_runs_do_not_write_the_same_output(resume, record, run, tiny_model, tmp_path, short_segments, capfd):
    bag = record.ros1('drive', FRAMES)
    first = start_slowly(bag, tmp_path / 'out', tiny_model)
    scratch = tmp_path / 'out/drive.partial'
    wait_for(lambda: any(scratch.glob('segment-*')))
    assert not run(bag, resume=resume)
    assert 'another run is writing' in capfd.readouterr().err
    assert first.wait() == 0
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['drive']
    assert len(contents(tmp_path / 'out/drive')) == FRAMES + 1


def test_many_runs_at_once_give_one_output(record, tiny_model, tmp_path):
    bag = record.ros1('drive', FRAMES)
    processes = []
    for _ in range(4):
        processes.append(start_slowly(bag, tmp_path / 'out', tiny_model, resume=True))
        time.sleep(0.1)
    for process in processes:
        process.wait()
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['drive']
    assert len(contents(tmp_path / 'out/drive')) == FRAMES + 1


KILL = 'lambda *_: os.kill(os.getpid(), signal.SIGKILL)'
LATE_KILLS = {
    # what the process is killed in, and whether its report comes before
    'before the report': (f'from superpoint_ros.bags import run; run.report = {KILL}', False),
    'before the folder is deleted': (f'from superpoint_ros.bags import run; run.discard = {KILL}', True),
    'while the folder is deleted': (f'from superpoint_ros.bags import scratch; scratch.clear = {KILL}', True),
}


@pytest.mark.parametrize('moment', LATE_KILLS)
def test_a_run_that_is_killed_late_loses_no_report(moment, record, run, tiny_model, tmp_path, capfd):
    bag = record.ros1('drive', 40, chunk=20_000)
    bag.write_bytes(bag.read_bytes()[:150_000])
    before, reported = LATE_KILLS[moment]
    process = start_slowly(bag, tmp_path / 'out', tiny_model, before)
    assert process.wait() == -signal.SIGKILL
    assert ('cut off' in capfd.readouterr().err) == reported
    good = run(bag, resume=True)
    report = capfd.readouterr().err
    if moment == 'while the folder is deleted':
        assert good
        assert 'done before' in report
    else:
        assert not good
        assert 'cut off' in report
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['drive']
    assert len(contents(tmp_path / 'out/drive')) > 20
    assert run(bag, resume=True)


def test_segments_of_another_run_are_not_used(record, run, tmp_path, short_segments, counted, monkeypatch):
    """The record of a run is lost, and its segments are not."""
    bag = record.ros1('drive', FRAMES)
    stop_early(run, bag, monkeypatch, counted)
    scratch = tmp_path / 'out/drive.partial'
    assert any(scratch.glob('segment-*'))
    (scratch / 'job.json').unlink()
    assert run(bag, resume=True, decode=DecodeConfig(max_keypoints=5))
    assert len(counted) == FRAMES
    assert {cloud.width for _, cloud in decoded(tmp_path / 'out/drive', '/camera/features')} == {5}


@pytest.mark.parametrize('damage', ['other job', 'no summary', 'broken summary'])
def test_a_segment_that_is_not_of_this_run_is_extracted_again(
    damage, record, run, tmp_path, short_segments, counted, monkeypatch
):
    bag = record.ros1('drive', FRAMES)
    stop_early(run, bag, monkeypatch, counted)
    segments = sorted((tmp_path / 'out/drive.partial').glob('segment-??????'))
    summary = segments[0] / 'summary.json'
    if damage == 'no summary':
        summary.unlink()
    else:
        summary.write_text('{"frames": 8' if damage == 'broken summary' else '{"job": "x", "frames": 8}')
    assert run(bag, resume=True)
    assert len(contents(tmp_path / 'out/drive')) == FRAMES + 1
    assert len(counted) >= FRAMES - (len(segments) - 1) * 9


def test_files_of_others_are_not_deleted(record, run, tmp_path, short_segments, counted, monkeypatch, capfd):
    bag = record.ros1('drive', FRAMES)
    stop_early(run, bag, monkeypatch, counted)
    notes = tmp_path / 'out/drive.partial/segment-notes.d/notes.txt'
    notes.parent.mkdir()
    notes.write_text('mine')
    capfd.readouterr()
    assert not run(bag, resume=True)
    assert 'has files that do not belong to an unfinished run (segment-notes.d)' in capfd.readouterr().err
    assert notes.read_text() == 'mine'

    (tmp_path / 'out/drive.partial/segment-notes.d').rename(tmp_path / 'away')
    unhurt = Extractor.batch

    def put_back(self, images):
        if (tmp_path / 'away').exists():
            (tmp_path / 'away').rename(tmp_path / 'out/drive.partial/segment-notes.d')
        return unhurt(self, images)

    monkeypatch.setattr(Extractor, 'batch', put_back)
    assert run(bag, resume=True)
    assert notes.read_text() == 'mine'
    assert [path.name for path in (tmp_path / 'out/drive.partial').iterdir()] == ['segment-notes.d']


def test_a_folder_that_is_not_of_a_run_is_left_alone(record, run, tmp_path, capfd):
    """A finished bag has the name of another one's folder for unfinished runs."""
    assert run(record.ros1('drive.partial', 5))
    finished, bag = contents(tmp_path / 'out/drive.partial'), record.ros1('drive', 3)
    for resume in (False, True):
        assert not run(bag, resume=resume)
        assert 'drive.partial has files that do not belong to an unfinished run' in capfd.readouterr().err
    assert contents(tmp_path / 'out/drive.partial') == finished
