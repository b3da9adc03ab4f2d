import numpy as np

from superpoint_ros.drawing import RIGHT, WRONG, draw_keypoints, draw_matches, draw_motion
from superpoint_ros.features import Features, Matches


def features(points, size=(100, 80)):
    keypoints = np.array(points, np.float32).reshape(-1, 2)
    scores = np.linspace(1, 0.1, len(keypoints), dtype=np.float32)
    return Features(keypoints, scores, np.zeros((len(keypoints), 0), np.float32), size)


def test_a_dot_is_drawn_at_each_keypoint_of_a_copy():
    image = np.zeros((80, 100), np.uint8)
    picture = draw_keypoints(image, features([[20, 30], [70, 50]]))
    assert picture.shape == (80, 100, 3)
    assert not image.any()
    rows, columns = np.nonzero(picture.any(axis=2))
    near = np.hypot(columns[:, None] - [20, 70], rows[:, None] - [30, 50]).min(axis=1)
    assert near.max() < 5
    best, weakest = picture[28:33, 17:24].reshape(-1, 3).max(0), picture[48:53, 67:74].reshape(-1, 3).max(0)
    assert best[1] > best[0], 'the best is yellow'
    assert weakest[2] > 150 > weakest[1], 'the weakest is pink'


def test_dots_stand_out_on_any_ground():
    for ground in (0, 128, 255):
        picture = draw_keypoints(np.full((80, 100), ground, np.uint8), features([[20, 30], [70, 50]])).astype(int)
        for x, y in ((20, 30), (70, 50)):
            dot = picture[y - 4 : y + 5, x - 4 : x + 5].reshape(-1, 3)
            assert np.abs(dot - ground).max(axis=1).max() > 120


def test_nothing_is_drawn_without_keypoints():
    image = np.full((80, 100, 3), 7, np.uint8)
    np.testing.assert_array_equal(draw_keypoints(image, features([])), image)


def test_matches_are_lines_between_two_images_side_by_side():
    images = np.zeros((80, 100), np.uint8), np.zeros((60, 50), np.uint8)
    points = np.array([[50, 20], [50, 50]], np.float32), np.array([[25, 20], [25, 50]], np.float32)
    picture = draw_matches(images, *points, np.array([True, False]))
    assert picture.shape == (80, 150, 3)
    np.testing.assert_allclose(picture[20, 90], RIGHT, atol=25)
    np.testing.assert_allclose(picture[50, 90], WRONG, atol=25)
    assert not picture[35].any()


def test_motion_is_a_line_to_where_a_point_was():
    before, now = features([[20, 20], [20, 60]]), features([[60, 60], [60, 20]])
    matches = Matches(np.array([[0, 1], [1, 0]], np.uint32), np.array([1, 0.5], np.float32))
    picture = draw_motion(np.zeros((80, 100), np.uint8), (before, now), matches)
    np.testing.assert_allclose(picture[20, 60], RIGHT, atol=25)
    np.testing.assert_allclose(picture[60, 60], WRONG, atol=25)
    assert picture[20, 40].any()
    assert picture[60, 40].any()
    assert not picture[20, 16].any(), 'the dot is where the point is now'
    assert not picture[40].any()
