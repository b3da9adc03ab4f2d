"""Features and matches: their shapes and types are checked, and rows can be taken."""

import numpy as np
import pytest

from superpoint_ros.features import Features, Matches


def arrays(count=4, depth=3):
    return {
        'keypoints': np.arange(count * 2, dtype=np.float32).reshape(count, 2),
        'scores': np.linspace(1, 0.5, count, dtype=np.float32),
        'descriptors': np.ones((count, depth), np.float32),
        'image_size': (640, 480),
    }


@pytest.mark.parametrize('rows', [slice(1, 3), np.array([1, 2]), np.array([False, True, True, False])])
def test_rows(rows):
    some = Features(**arrays())[rows]
    assert len(some) == 2
    np.testing.assert_array_equal(some.keypoints, [[2, 3], [4, 5]])
    assert some.image_size == (640, 480)


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('keypoints', np.zeros((4, 2)), r'keypoints: expected float32 of shape \(4, 2\), got float64'),
        ('keypoints', np.zeros((4, 3), np.float32), r'got float32 of shape \(4, 3\)'),
        ('scores', np.zeros(3, np.float32), r'scores: expected float32 of shape \(4,\)'),
        ('descriptors', np.zeros((3, 3), np.float32), r'descriptors: expected float32 of shape \(4, 3\)'),
        ('descriptors', np.zeros(4, np.float32), r'descriptors: expected shape \(4, D\)'),
    ],
)
def test_wrong_arrays(name, value, message):
    with pytest.raises(ValueError, match=message):
        Features(**(arrays() | {name: value}))


def test_matches():
    matches = Matches(np.array([[0, 1], [2, 3]], np.uint32), np.array([0.5, 0.9], np.float32))
    assert len(matches) == 2
    assert matches[matches.similarities > 0.8].indices.tolist() == [[2, 3]]
    with pytest.raises(ValueError, match='indices: expected uint32'):
        Matches(np.zeros((2, 2), np.int64), np.zeros(2, np.float32))
    with pytest.raises(ValueError, match='similarities: expected float32'):
        Matches(np.zeros((2, 2), np.uint32), np.zeros((2, 1), np.float32))


def test_a_representation_is_one_short_line():
    assert repr(Features(**arrays())) == 'Features(4 keypoints, 3-D descriptors, 640×480 image)'
    assert repr(Matches(np.zeros((7, 2), np.uint32), np.zeros(7, np.float32))) == 'Matches(7)'
