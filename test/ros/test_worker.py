import threading

import pytest

from superpoint_ros.ros import worker as module
from superpoint_ros.ros.worker import Worker


class Slow:
    """A process function that waits until it is released."""

    def __init__(self):
        self.calls = []
        self.busy = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self, items):
        self.calls.append(dict(items))
        self.busy.release()
        assert self.go.acquire(timeout=10)


def test_with_depth_1_only_the_newest_item_of_a_key_waits():
    slow, dropped = Slow(), []
    worker = Worker(slow, [].append, dropped.append)
    worker.put('left', 0)
    assert slow.busy.acquire(timeout=10)
    for item in range(1, 5):
        worker.put('left', item)
    worker.put('right', 10)
    slow.go.release(2)
    assert slow.busy.acquire(timeout=10)
    worker.stop()
    assert slow.calls == [{'left': 0}, {'left': 4, 'right': 10}]
    assert dropped == ['left'] * 3


def test_a_deeper_queue_keeps_the_order_of_each_key_and_drops_the_oldest():
    slow, dropped = Slow(), []
    worker = Worker(slow, [].append, dropped.append, depth=2)
    worker.put('a', 'a0')
    assert slow.busy.acquire(timeout=10)
    for item in ('a1', 'b1', 'a2', 'a3', 'b2', 'a4', 'c1'):
        worker.put(item[0], item)
    for _ in range(2):
        slow.go.release()
        assert slow.busy.acquire(timeout=10)
    slow.go.release()
    worker.stop()
    assert slow.calls == [{'a': 'a0'}, {'a': 'a3', 'b': 'b1', 'c': 'c1'}, {'a': 'a4', 'b': 'b2'}]
    assert dropped == ['a', 'a']


def test_stop_discards_what_waits():
    slow = Slow()
    worker = Worker(slow, [].append, [].append)
    worker.put('left', 0)
    assert slow.busy.acquire(timeout=10)
    worker.put('left', 1)
    threading.Timer(0.05, slow.go.release).start()
    worker.stop()
    worker.put('left', 2)
    assert slow.calls == [{'left': 0}]


def test_an_error_is_reported_and_the_next_item_is_processed():
    done, errors = threading.Event(), []

    def process(items):
        if items['left'] == 'bad':
            raise RuntimeError('it broke')
        done.set()

    worker = Worker(process, errors.append, [].append, depth=2)
    worker.put('left', 'bad')
    worker.put('left', 'good')
    assert done.wait(timeout=10)
    worker.stop()
    assert [str(error) for error in errors] == ['it broke']


def test_stop_does_not_wait_without_limit(monkeypatch):
    monkeypatch.setattr(module, 'PATIENCE', 0.1)
    slow = Slow()
    worker = Worker(slow, [].append, [].append)
    worker.put('left', 0)
    assert slow.busy.acquire(timeout=10)
    with pytest.raises(TimeoutError, match='the message in progress takes longer than'):
        worker.stop()
    slow.go.release()
    monkeypatch.setattr(module, 'PATIENCE', 10.0)
    worker.stop()
