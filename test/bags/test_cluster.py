"""Two Ray workers on this machine."""

import os
import signal
import threading
import time
import uuid
from pathlib import Path

import pytest

pytest.importorskip('ray', reason='needs ray')

from superpoint_ros.bags import job

from .conftest import contents


def workers(mark):
    """The process ids of the Ray workers with this in their environment."""
    found = []
    for path in Path('/proc').glob('[0-9]*'):
        try:
            if b'SegmentWorker' in (path / 'cmdline').read_bytes() and mark in (path / 'environ').read_bytes():
                found.append(int(path.name))
        except OSError:  # the process has ended
            continue
    return found


def lines(report):
    """The lines on bags and their problems, without the progress bar and what Ray prints."""
    return [line for line in report.splitlines() if line.startswith(('/', '  '))]


def test_a_killed_worker_does_not_change_the_output(record, run, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(job, 'SEGMENT_FRAMES', 4)
    bags = [record.ros1('one', 160), record.ros2('two', 80), record.ros1('damaged', 40, chunk=20_000)]
    bags[2].write_bytes(bags[2].read_bytes()[:150_000])
    options = {'match': True, 'copy': True}
    assert not run(*bags, **options)
    names = ['damaged', 'one', 'two']
    expected = {name: contents(tmp_path / 'out' / name) for name in names}
    (tmp_path / 'out').rename(tmp_path / 'here')

    mark = uuid.uuid4().hex.encode()
    monkeypatch.setenv('SUPERPOINT_TEST', mark.decode())
    killed = []

    def kill_one():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            if len(list((tmp_path / 'out/one.partial').glob('segment-??????'))) >= 3 and (found := workers(mark)):
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
            time.sleep(0.005)

    killer = threading.Thread(target=kill_one)
    killer.start()
    expected_report = lines(capfd.readouterr().err)
    try:
        assert not run(*bags, cluster='local', workers=2, **options)
    finally:
        killer.join()
    assert killed, 'the run ended before a worker could be killed'
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == names
    for name in names:
        assert contents(tmp_path / 'out' / name) == expected[name]
    assert lines(capfd.readouterr().err) == expected_report
