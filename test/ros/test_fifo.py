import threading

from superpoint_ros.ros.fifo import Fifo


def test_everything_in_order_and_the_oldest_of_a_key_makes_room():
    started, go_on, done = threading.Event(), threading.Event(), threading.Event()
    processed, dropped = [], []

    def process(item):
        started.set()
        go_on.wait(20)
        processed.append(item)
        if item == 'last':
            done.set()

    fifo = Fifo(process, dropped.append, depth=2)
    fifo.put('a', 'a0')
    assert started.wait(20)
    for item in ('a1', 'b1', 'a2', 'a3', 'b2', 'a4'):
        fifo.put(item[0], item)
    fifo.put('c', 'last')
    go_on.set()
    assert done.wait(20)
    fifo.stop()
    assert processed == ['a0', 'b1', 'a3', 'b2', 'a4', 'last']
    assert dropped == ['a', 'a']


def test_stop_forgets_what_waits():
    started, go_on, processed = threading.Event(), threading.Event(), []

    def process(item):
        started.set()
        go_on.wait(20)
        processed.append(item)

    fifo = Fifo(process, lambda _: None, depth=5)
    fifo.put('a', 1)
    fifo.put('a', 2)
    assert started.wait(20)
    threading.Timer(0.2, go_on.set).start()
    fifo.stop()
    assert processed == [1]
