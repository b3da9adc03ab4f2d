import itertools
import threading
import time

import pytest

from superpoint_ros.bags import pipeline
from superpoint_ros.bags.pipeline import prefetch


def test_prefetch_keeps_the_order():
    def slow_when_even(number):
        time.sleep(0.01 * (number % 2 == 0))
        return number

    assert list(prefetch(slow_when_even, range(50), 4, 8)) == list(range(50))


def test_prefetch_takes_no_more_than_its_depth():
    taken = itertools.count()
    results = prefetch(lambda number: number, (next(taken) for _ in range(1000)), 2, 5)
    assert next(results) == 0
    assert next(taken) == 6  # one result and five items in work


def test_prefetch_takes_few_items_if_they_are_large(monkeypatch):
    monkeypatch.setattr(pipeline, 'MAX_PENDING', 100)
    taken = []

    def items():
        for size in (60, 60, 300, 10, 10):
            taken.append(size)
            yield size

    results = prefetch(lambda size: size, items(), 2, 5, lambda size: size)
    assert next(results) == 60
    assert taken == [60, 60]
    assert list(results) == [60, 300, 10, 10]


def test_prefetch_runs_all_its_threads():
    together = threading.Barrier(3, timeout=10)
    assert list(prefetch(lambda _: together.wait() >= 0, range(6), 3, 6)) == [True] * 6


@pytest.mark.parametrize('where', ['items', 'function'])
def test_an_error_is_raised_in_place_of_its_result(where):
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
        found.extend(prefetch(function, items(), 2, 1))
    assert found == list(range(len(found)))
    assert len(found) >= 4
