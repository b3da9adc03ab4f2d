import itertools
import threading
import time

import pytest

from superpoint_ros.bags.pipeline import ahead


def test_ahead_keeps_the_order_whichever_is_ready_first():
    def slow_when_even(number):
        time.sleep(0.01 * (number % 2 == 0))
        return number

    assert list(ahead(slow_when_even, range(50), 4, 8)) == list(range(50))


def test_ahead_works_while_the_caller_is_busy_and_takes_no_more_than_it_may():
    taken = itertools.count()
    results = ahead(lambda number: number, (next(taken) for _ in range(1000)), 2, 5)
    assert next(results) == 0
    assert next(taken) == 6  # the one given, and five ahead


def test_ahead_runs_as_many_threads_as_it_may():
    together = threading.Barrier(3, timeout=10)
    assert list(ahead(lambda _: together.wait() >= 0, range(6), 3, 6)) == [True] * 6


@pytest.mark.parametrize('where', ['items', 'function'])
def test_an_error_comes_out_at_its_place(where):
    def items():
        yield from range(5)
        if where == 'items':
            raise RuntimeError('broken')
        yield from range(5, 10)

    def function(number):
        if where == 'function' and number == 5:
            raise RuntimeError('broken')
        return number

    found = []
    with pytest.raises(RuntimeError, match='broken'):
        found.extend(ahead(function, items(), 2, 1))
    assert found == list(range(len(found)))
    assert len(found) >= 4
