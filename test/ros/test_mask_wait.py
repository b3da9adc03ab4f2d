"""Images get the masks of their stamps, whatever the order of arrival, and none waits longer than it may."""

from hypothesis import given
from hypothesis import strategies as st

from superpoint_ros.ros.mask_wait import WAITING, MaskWait


class Recorder(MaskWait):
    """Records what is passed on."""

    def __init__(self, required=False, timeout=0.1):
        self.passed = []
        super().__init__(timeout, required, lambda image, mask: self.passed.append((image, mask)))


def test_a_mask_may_come_before_or_after_its_image():
    wait = Recorder()
    wait.add_mask(1, 'mask 1')
    wait.add_image(1, 'image 1', 0.0)
    wait.add_image(2, 'image 2', 0.0)
    assert wait.passed == [('image 1', 'mask 1')]
    wait.add_mask(2, 'mask 2')
    assert wait.passed[1:] == [('image 2', 'mask 2')]
    assert (wait.paired, wait.missing) == (2, 0)


def test_an_image_without_a_mask_is_passed_on_or_dropped_when_its_time_is_over():
    for required, passed in ((False, [('image', None)]), (True, [])):
        wait = Recorder(required)
        wait.add_image(1, 'image', 5.0)
        wait.expire(5.09)
        assert (wait.passed, wait.missing) == ([], 0)
        wait.expire(5.1)
        assert (wait.passed, wait.missing) == (passed, 1)
        wait.add_mask(1, 'late')
        assert wait.passed == passed
        assert wait.late == 1
        wait.add_mask(2, 'early')
        assert wait.late == 1


def test_an_image_is_given_up_when_a_later_one_has_its_mask():
    wait = Recorder()
    wait.add_image(1, 'image 1', 0.0)
    wait.add_image(2, 'image 2', 0.0)
    wait.add_mask(2, 'mask 2')
    assert wait.passed == [('image 1', None), ('image 2', 'mask 2')]
    wait.add_mask(3, 'mask 3')
    wait.add_image(4, 'image 4', 0.0)
    wait.add_image(3, 'image 3', 0.0)
    assert wait.passed[2:] == [('image 4', None), ('image 3', 'mask 3')]


def test_two_images_of_one_stamp_are_both_passed_on():
    wait = Recorder()
    wait.add_image(1, 'first', 0.0)
    wait.add_image(1, 'second', 0.0)
    wait.add_mask(1, 'mask')
    assert wait.passed == [('first', None), ('second', 'mask')]


def test_a_late_mask_is_not_paired_with_a_later_image_of_the_same_stamp():
    wait = Recorder()
    wait.add_image(1, 'before the reset', 0.0)
    wait.expire(1.0)
    wait.add_mask(1, 'late')
    wait.add_image(1, 'after the reset', 2.0)
    assert wait.passed == [('before the reset', None)]
    wait.add_mask(1, 'mask')
    assert wait.passed[1:] == [('after the reset', 'mask')]


@given(
    st.lists(st.tuples(st.sampled_from(['image', 'mask', 'expire']), st.integers(0, 60)), max_size=200), st.booleans()
)
def test_every_image_is_passed_on_once_with_its_own_mask_or_given_up(events, required):
    wait = Recorder(required, timeout=3)
    added = []
    for now, (kind, stamp) in enumerate(events):
        if kind == 'image':
            added.append((stamp, now))
            wait.add_image(stamp, (stamp, now), now)
        elif kind == 'mask':
            wait.add_mask(stamp, stamp)
        else:
            wait.expire(now)
        assert len(wait._images) <= WAITING
        assert len(wait._masks) <= WAITING
    wait.expire(float('inf'))
    assert all(mask is None or mask == stamp for (stamp, _), mask in wait.passed)
    assert [image for image, _ in wait.passed] == sorted({image for image, _ in wait.passed}, key=added.index)
    assert wait.paired + wait.missing == len(added)
    assert len(wait.passed) == (wait.paired if required else len(added))
