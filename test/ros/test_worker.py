import threading

from superpoint_ros.ros.worker import Worker


class Slow:
    """A process function that waits until it is let go."""

    def __init__(self):
        self.calls = []
        self.busy = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self, items):
        self.calls.append(dict(items))
        self.busy.release()
        assert self.go.acquire(timeout=10)


def test_only_the_newest_waits_and_the_others_are_counted():
    slow, dropped = Slow(), []
    worker = Worker(slow, dropped.append)
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


def test_after_stop_nothing_runs():
    slow = Slow()
    worker = Worker(slow, [].append)
    worker.put('left', 0)
    assert slow.busy.acquire(timeout=10)
    worker.put('left', 1)
    threading.Timer(0.05, slow.go.release).start()
    worker.stop()
    worker.put('left', 2)
    assert slow.calls == [{'left': 0}]
