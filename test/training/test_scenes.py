"""Scenes with parallax: where points go, what hides what, and that images show it."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superpoint_ros.training.scenes import (
    Scene,
    SceneConfig,
    camera_matrix,
    homogeneous,
    paint,
    render_triangles,
    sample_scene,
    sample_view,
    transfer,
)

PHOTOGRAPH, SIZE = (320, 240), (200, 160)
KINDS = {'plane': (1.0, 0.0), 'surface': (0.0, 1.0), 'pieces': (0.0, 0.0)}
CAMERA = camera_matrix(100, (101, 81))


def wall(left, right, depth):
    """Two triangles: a wall from left to right, facing the camera, high enough to be seen all over."""
    corners = np.array([[left, -9, depth], [right, -9, depth], [right, 9, depth], [left, 9, depth]], float)
    return [corners[[0, 1, 2]].T, corners[[0, 2, 3]].T]


def seen_from(corners, shift=0.0, size=(101, 81)):
    """A view of triangles from a camera that is moved to the right."""
    return render_triangles(CAMERA @ (np.array(corners) - [[shift], [0], [0]]), size)


def two_walls():
    """Before a backdrop at depth 4, a wall at depth 2 that ends at x = 0."""
    return [*wall(-9, 0, 2.0), wall(-99, 99, 4.0)[0]]


def test_the_nearest_triangle_is_seen():
    triangles = seen_from(two_walls()).triangles
    # The wall ends at the center of the image, column 50, where its edge is still part of it.
    assert (triangles[:, :51] < 2).all()
    assert (triangles[:, 51:] == 2).all()


def test_points_move_by_the_parallax_of_their_depth():
    corners = two_walls()
    moved, visible = transfer(np.array([[20.0, 10.0], [80.0, 10.0]]), seen_from(corners), seen_from(corners, shift=0.2))
    # Focal length 100: the camera's shift of 0.2 moves points at depth 2 by 10 pixels, at depth 4 by 5.
    np.testing.assert_allclose(moved, [[10, 10], [75, 10]], atol=1e-9)
    assert visible.all()


def test_hidden_points_and_points_outside_are_not_visible():
    corners = two_walls()
    source, target = seen_from(corners), seen_from(corners, shift=-0.4)
    # From 0.4 further left the wall ends at column 70; points at depth 4 move by 10, points at depth 2 by 20.
    moved, visible = transfer(np.array([[55.0, 40.0], [65.0, 40.0], [95.0, 40.0], [40.0, 40.0]]), source, target)
    np.testing.assert_allclose(moved[:, 0], [65, 75, 105, 60], atol=1e-9)
    assert visible.tolist() == [False, True, False, True]


def test_the_back_of_a_triangle_is_not_seen():
    corners = [*wall(-9, 9, 2.0), wall(-99, 99, 4.0)[0]]
    front = seen_from(corners)
    turned = np.diag([-1.0, 1.0, -1.0])  # a camera behind the wall that looks back
    behind = render_triangles(CAMERA @ (turned @ (np.array(corners) - [[0], [0], [3.0]])), (101, 81))
    assert (front.triangles < 2).all()
    assert (behind.triangles == 2).all()
    _, visible = transfer(np.array([[30.0, 40.0]]), front, behind)
    assert not visible.any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(sorted(KINDS)))
def test_what_two_views_show_goes_there_and_back(seed, kind):
    rng = np.random.default_rng(seed)
    config = SceneConfig(*KINDS[kind])
    scene = sample_scene(rng, PHOTOGRAPH, config)
    view0, view1 = (sample_view(rng, scene, SIZE, config) for _ in range(2))
    points = rng.uniform(0, np.array(SIZE) - 1, (200, 2))
    there, visible = transfer(points, view0, view1)
    back, again = transfer(there[visible], view1, view0)
    # Near the edge of a triangle the nearest pixel may show its neighbor, which leads a little aside.
    distances = np.linalg.norm(back[again] - points[visible][again], axis=1)
    assert np.mean(again) > 0.75 or visible.sum() < 50
    assert distances.size == 0 or np.quantile(distances, 0.9) < 0.5
    assert (there[visible] >= -0.5).all()
    assert (there[visible] < np.array(SIZE) - 0.5).all()


@pytest.mark.parametrize('seed', range(5))
def test_views_of_a_plane_are_related_by_a_homography(seed):
    rng = np.random.default_rng(seed)
    config = SceneConfig(*KINDS['plane'])
    scene = sample_scene(rng, PHOTOGRAPH, config)
    view0, view1 = (sample_view(rng, scene, SIZE, config) for _ in range(2))
    points = rng.uniform(0, np.array(SIZE) - 1, (300, 2))
    points = points[view0.triangles[tuple(np.rint(points).astype(int).T[::-1])] < 2]
    there, _ = transfer(points, view0, view1)
    homography, _ = cv2.findHomography(points, there)
    np.testing.assert_allclose(cv2.perspectiveTransform(points[None], homography)[0], there, atol=1e-3)


def test_parallax_is_not_a_homography():
    rng = np.random.default_rng(0)
    config = SceneConfig(*KINDS['pieces'])
    scene = sample_scene(rng, PHOTOGRAPH, config)
    view0, view1 = (sample_view(rng, scene, SIZE, config) for _ in range(2))
    points = rng.uniform(0, np.array(SIZE) - 1, (300, 2))
    there, visible = transfer(points, view0, view1)
    homography, _ = cv2.findHomography(points[visible], there[visible])
    errors = np.linalg.norm(cv2.perspectiveTransform(points[None], homography)[0] - there, axis=1)
    assert np.median(errors[visible]) > 3


@pytest.mark.parametrize('kind', sorted(KINDS))
def test_views_show_the_same_gray_at_the_same_point(kind):
    rng = np.random.default_rng(1)
    photograph, backdrop = (
        cv2.GaussianBlur(rng.integers(0, 256, (240, 320)).astype(np.uint8), (0, 0), 6) for _ in range(2)
    )
    photograph, backdrop = (cv2.normalize(one, None, 0, 255, cv2.NORM_MINMAX) for one in (photograph, backdrop))
    config = SceneConfig(*KINDS[kind])
    scene = sample_scene(rng, PHOTOGRAPH, config)
    views = [sample_view(rng, scene, SIZE, config) for _ in range(2)]
    images = [paint(view, scene, photograph, backdrop).astype(float) for view in views]
    assert all(image.std() > 10 for image in images)
    points = rng.uniform(5, np.array(SIZE) - 6, (500, 2))
    there, visible = transfer(points, *views)
    gray0, gray1 = (
        cv2.remap(image, *np.float32(where).T[:, :, None], cv2.INTER_LINEAR)[:, 0]
        for image, where in zip(images, (points[visible], there[visible]), strict=True)
    )
    assert visible.sum() > 100
    assert np.median(np.abs(gray0 - gray1)) < 3


def test_a_view_that_shows_the_whole_photograph_is_the_photograph():
    photograph = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (240, 320)).astype(np.uint8), (0, 0), 2)
    config = SceneConfig(planes=1.0, slope=0.0, visible=(1.0, 1.0), distance=1.0, turn=0.0, roll=0.0)
    rng = np.random.default_rng(0)
    scene = sample_scene(rng, PHOTOGRAPH, config)
    image = paint(sample_view(rng, scene, PHOTOGRAPH, config), scene, photograph, photograph)
    assert np.abs(image.astype(int) - photograph).max() <= 1


def test_an_impulse_is_painted_where_points_are_transferred_to():
    photograph = np.zeros((240, 320), np.uint8)
    photograph[100:103, 150:153] = 255
    config = SceneConfig(planes=1.0)
    rng = np.random.default_rng(3)
    scene = sample_scene(rng, PHOTOGRAPH, config)
    original = render_triangles(scene.texture, PHOTOGRAPH)
    view = sample_view(rng, scene, SIZE, config)
    image = paint(view, scene, photograph, np.zeros_like(photograph)).astype(float)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    center = np.array([(image * x).sum(), (image * y).sum()]) / image.sum()
    expected, visible = transfer(np.array([[151.0, 101.0]]), original, view)
    assert visible.all()
    np.testing.assert_allclose(center, expected[0], atol=0.1)


def test_the_same_seed_gives_the_same_scene():
    scenes = [sample_scene(np.random.default_rng(7), PHOTOGRAPH, SceneConfig()) for _ in range(2)]
    assert isinstance(scenes[0], Scene)
    assert np.array_equal(scenes[0].corners, scenes[1].corners)
    assert homogeneous(np.zeros((2, 2))).tolist() == [[0, 0, 1], [0, 0, 1]]
