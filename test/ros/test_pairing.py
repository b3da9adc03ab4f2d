import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros.ros.pairing import Pairing


def feed(pairing, messages):
    """Adds (side, stamp) messages; returns the resulting pairs of stamps."""
    pairs = (pairing.add(side, stamp, stamp) for side, stamp in messages)
    return [pair for pair in pairs if pair]


def test_equal_stamps_pair_in_any_order():
    assert feed(Pairing(0, 5), [(0, 1), (1, 1), (1, 2), (0, 2), (0, 3), (1, 4)]) == [(1, 1), (2, 2)]


def test_messages_may_be_out_of_order_or_missing():
    pairing = Pairing(0, 3)
    assert feed(pairing, [(0, 1), (0, 2), (1, 2), (1, 1)]) == [(2, 2), (1, 1)]
    assert feed(pairing, [(0, 3), (0, 4), (0, 5), (0, 6)]) == []
    assert pairing.unpaired == 1, '3 is given up'
    assert feed(pairing, [(1, 3), (1, 6)]) == [(6, 6)]
    pairing.clear()
    assert pairing.unpaired == 4
    assert feed(pairing, [(1, 4)]) == []


def test_the_nearest_stamp_within_the_tolerance_is_paired():
    pairing = Pairing(4, 5)
    assert feed(pairing, [(0, 10), (0, 20), (1, 17)]) == [(20, 17)]
    assert feed(pairing, [(1, 15)]) == [], '10 is 5 away'
    assert feed(pairing, [(1, 14)]) == [(10, 14)]


def test_a_repeated_stamp_replaces_the_first_message():
    pairing = Pairing(0, 5)
    assert feed(pairing, [(0, 1), (0, 1), (1, 1), (1, 1)]) == [(1, 1)]
    assert pairing.unpaired == 1


@given(
    delays=st.lists(st.integers(0, 3), min_size=40, max_size=40),
    lost=st.sets(st.tuples(st.integers(0, 1), st.integers(0, 19)), max_size=8),
)
def test_all_messages_with_a_counterpart_are_paired(delays, lost):
    """Two cameras with a period of 100 ms, 5 ms apart; messages are up to three frames late, and some are lost."""
    messages = [(frame + delay, side, frame) for (side, frame), delay in zip(np.ndindex(2, 20), delays, strict=True)]
    arriving = [(side, 100 * frame + 5 * side) for _, side, frame in sorted(messages) if (side, frame) not in lost]
    pairing = Pairing(10, 20)
    wanted = [(100 * f, 100 * f + 5) for f in range(20) if not {(0, f), (1, f)} & lost]
    assert sorted(feed(pairing, arriving)) == wanted
    pairing.clear()
    assert pairing.unpaired == len(arriving) - 2 * len(wanted)


def test_the_smallest_difference_is_of_frames_that_wait():
    pairing = Pairing(1, 3)
    assert pairing.smallest_difference() is None
    assert feed(pairing, [(0, 100), (0, 200)]) == []
    assert pairing.smallest_difference() is None
    assert feed(pairing, [(1, 107), (1, 220)]) == []
    assert pairing.smallest_difference() == 7
    assert feed(pairing, [(1, 101)]) == [(100, 101)]
    assert pairing.smallest_difference() == 20
    pairing.clear()
    assert pairing.smallest_difference() is None
