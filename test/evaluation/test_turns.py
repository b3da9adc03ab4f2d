import dataclasses

import cv2
import numpy as np
import pytest

from superpoint_ros.evaluation import turns
from superpoint_ros.evaluation.methods import ALL_NEAREST, Method
from superpoint_ros.evaluation.protocols import VIEWS
from superpoint_ros.features import Features
from superpoint_ros.geometry import transform_points


def features(keypoints, descriptors):
    return Features(np.float32(keypoints), np.ones(len(keypoints), np.float32), np.float32(descriptors), (160, 120))


@pytest.mark.parametrize('angle', [15, 90, 135, 180, -90])
def test_a_point_of_a_turned_image_is_where_the_transform_says(angle):
    center = np.array([37.0, 88.0])
    x, y = np.meshgrid(np.arange(160), np.arange(120))
    blob = np.rint(200 * np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / 18)).astype(np.uint8)
    view, transform = turns.turn(blob, angle)
    expected = transform_points(transform, center)
    left, top = (round(float(v)) - 10 for v in expected)
    window = view[top : top + 21, left : left + 21].astype(float)
    rows, columns = np.mgrid[top : top + 21, left : left + 21]
    found = np.array([(columns * window).sum(), (rows * window).sum()]) / window.sum()
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_a_quarter_turn_is_counterclockwise_and_exact():
    image = np.random.default_rng(0).integers(0, 255, (24, 37), np.uint8)
    view, _ = turns.turn(image, 90)
    np.testing.assert_array_equal(view, np.rot90(image))


def test_a_turned_view_holds_all_of_the_image():
    view, transform = turns.turn(np.zeros((120, 160), np.uint8), 45)
    corners = transform_points(transform, np.array([[0.0, 0], [159, 0], [159, 119], [0, 119]]))
    assert (corners >= -0.5).all()
    assert (corners <= np.array(view.shape[::-1]) - 0.5).all()
    assert view.shape == (198, 198)  # (160 + 120) / √2


def test_views_are_those_that_their_labels_name():
    image = np.zeros((120, 160), np.uint8)
    sizes = {label: turns.view(image, index)[0].shape[::-1] for index, label in enumerate(turns.LABELS)}
    assert (sizes['0°'], sizes['90°'], sizes['180°']) == ((160, 120), (120, 160), (160, 120))
    assert (sizes['×0.75'], sizes['×0.5'], sizes['×0.4']) == ((120, 90), (80, 60), (64, 48))
    np.testing.assert_array_equal(turns.view(image, 0)[1], np.eye(3))


def test_the_share_of_right_matches_worked_out_by_hand():
    """Of four points three are in the view; of these one is 3 px off, one 4 px; the fourth has no counterpart."""
    shift = np.array([[1.0, 0, 10], [0, 1, 0], [0, 0, 1]])
    points = np.array([[10, 10], [50, 10], [10, 50], [50, 50]])
    seen = [[20, 10], [63, 10], [20, 54]]
    assert turns.right_share(features(points, np.eye(4)), features(seen, np.eye(4)[:3]), shift, 3) == 2 / 3
    nothing = features(np.empty((0, 2)), np.empty((0, 4)))
    assert turns.right_share(nothing, features(seen, np.eye(4)[:3]), shift, 3) == 0


def test_points_in_the_mirror_image_do_not_count(tmp_path):
    """A method finds the same eight points in all views, but first of all those in the corners of turned views."""
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((120, 160), np.uint8))
    points = np.random.default_rng(0).uniform(20, 100, (8, 2))
    transforms = {}
    for index in range(len(turns.LABELS)):
        view, transform = turns.view(np.zeros((120, 160), np.uint8), index)
        transforms.setdefault(view.shape, transform)

    def extract(image):
        here = transform_points(transforms[image.shape], points)
        corners = np.full((20, 2), 3.0) if image.shape == (198, 198) else np.empty((0, 2))
        noise = np.random.default_rng(1).standard_normal((20, 8))
        return features([*corners, *here], [*noise[: len(corners)], *np.eye(8)])

    setting = dataclasses.replace(VIEWS, keypoints=8)
    method = Method('cheat', 'by hand', lambda _: extract, False, True)
    (row,), _ = turns.evaluate([tmp_path / 'a.png'], [method], setting, {'nearest': ALL_NEAREST})
    assert row['45°'] == 1


def test_a_method_for_upright_images_fails_where_they_are_turned(tmp_path):
    """Descriptors that are patches hold at 0° and a little beyond, not upside down; bad and small files are listed."""
    noise = np.random.default_rng(0).integers(0, 255, (120, 160), np.uint8)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    cv2.imwrite(str(tmp_path / 'a.png'), texture)
    (tmp_path / 'b.png').write_bytes(b'broken')
    cv2.imwrite(str(tmp_path / 'small.png'), texture[:30])

    def patches(image):
        corners = cv2.goodFeaturesToTrack(image, 50, 0.01, 5)[:, 0]
        rows = [cv2.getRectSubPix(image, (15, 15), point.tolist()).ravel().astype(float) for point in corners]
        rows = np.array([row - row.mean() for row in rows])
        return features(corners, rows / np.linalg.norm(rows, axis=1, keepdims=True))

    method = Method('patches', 'by hand', lambda _: patches, False, True)
    paths = [tmp_path / name for name in ('a.png', 'b.png', 'small.png')]
    rows, failed = turns.evaluate(paths, [method], VIEWS, {'nearest': ALL_NEAREST})
    assert 'b.png' in failed[0]
    assert failed[1:] == ['photographs too small to be shrunk to 0.4 of their size: 1']
    (row,) = rows
    assert row['0°'] == 1
    assert row['15°'] > 0.4
    assert row['180°'] < 0.1
    assert row['×0.75'] > row['×0.4']
    assert '| patches | 1 | 1.000 |' in turns.sections(rows, VIEWS)[1]
    turned, shrunk = turns.panels(rows)
    assert turned.curves['patches'][1].tolist() == [row[label] for label in turns.LABELS[:8]]
    assert shrunk.curves['patches'][0].tolist() == [1.0, *turns.SCALES]
