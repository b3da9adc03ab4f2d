import cv2
import numpy as np
import pytest

from superpoint_ros.training.synthetic_shapes import MIN_DISTANCE, SHAPES, Canvas, render, thin


def rng(seed=0):
    return np.random.default_rng(seed)


def plain_canvas(gray=0):
    """A canvas of one gray, to tell exactly what is drawn on it."""
    canvas = Canvas(rng(), (80, 60))
    canvas.image[:] = gray
    return canvas


def rectangle(left, top, right, bottom):
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)


def sorted_points(points):
    return np.array(sorted(np.round(points, 6).tolist()))


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('size', [(160, 120), (64, 48)])
def test_pictures_are_reproducible_and_their_points_lie_in_them_and_apart(shape, size):
    for seed in range(8):
        image, points = render(shape, rng(seed), size)
        again, points_again = render(shape, rng(seed), size)
        np.testing.assert_array_equal(image, again)
        np.testing.assert_array_equal(points, points_again)
        assert image.shape == size[::-1]
        assert image.dtype == np.uint8
        assert points.dtype == np.float32
        assert points.shape == (len(points), 2)
        assert (points >= 0).all()
        assert (points <= np.array(size) - 1).all()
        assert len(thin(points, MIN_DISTANCE - 1e-4)) == len(points)


@pytest.mark.parametrize('shape', SHAPES)
def test_only_shapes_with_corners_have_points(shape):
    count = sum(len(render(shape, rng(seed))[1]) for seed in range(10))
    assert (count == 0) == (shape in ('ellipses', 'gaussian_noise'))


def test_pictures_differ_from_seed_to_seed():
    assert len({render('polygon', rng(seed))[0].tobytes() for seed in range(20)}) == 20


def test_an_unknown_shape_is_named():
    with pytest.raises(ValueError, match="'hexagon' is not one of lines, polygon"):
        render('hexagon', rng())


def test_what_is_drawn_lies_where_its_corners_say():
    y, x = np.mgrid[:60, :80]
    errors, sides = [], []
    for offset in rng().uniform(0, 1, (200, 2)):
        canvas = plain_canvas(0)
        canvas.fill(rectangle(20, 10, 50, 40) + offset, 200)
        picture = cv2.resize(canvas.image, canvas.size, interpolation=cv2.INTER_AREA) / 200
        # With pixel centers at integers, the pixels of a rectangle weigh in at its middle.
        middle = np.array([(x * picture).sum(), (y * picture).sum()]) / picture.sum()
        errors.append(middle - (np.array([35, 25]) + offset))
        sides.append(np.sqrt(picture.sum()))
    assert np.abs(errors).max() < 0.15  # half a pixel of the drawing
    assert np.abs(np.mean(errors, axis=0)).max() < 0.02
    assert np.mean(sides) == pytest.approx(30, abs=0.3)


def test_labels_of_a_board_are_where_a_corner_finder_finds_them():
    errors = []
    for seed in range(30):
        image, points = render('checkerboard', rng(seed))
        inner = points[((points > 10) & (points < np.array([149, 109]))).all(axis=1)]
        if len(inner):
            criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 1e-3)
            found = cv2.cornerSubPix(image, inner[:, None].copy(), (3, 3), (-1, -1), criteria)[:, 0]
            errors.append(found - inner)
    errors = np.concatenate(errors)
    assert len(errors) > 200
    assert np.abs(np.median(errors, axis=0)).max() < 0.05  # no offset, of half a pixel or any other
    assert np.median(np.linalg.norm(errors, axis=1)) < 0.25


def test_a_hidden_corner_is_no_label_and_where_outlines_meet_is_one():
    canvas = plain_canvas()
    canvas.fill(rectangle(10, 10, 30, 30), 100)
    canvas.fill(rectangle(20, 20, 50, 50), 200)  # hides the corner (30, 30)
    expected = [[10, 10], [30, 10], [10, 30], [20, 20], [50, 20], [50, 50], [20, 50], [30, 20], [20, 30]]
    np.testing.assert_allclose(sorted_points(canvas.points), sorted_points(np.array(expected)))


def test_a_junction_below_another_shape_is_no_label():
    canvas = plain_canvas()
    canvas.fill(rectangle(10, 10, 30, 30), 100)
    canvas.fill(rectangle(25, 5, 60, 20), 150)  # meets the first at (25, 10) and (30, 20)
    canvas.fill(rectangle(15, 2, 40, 15), 200)  # hides (25, 10), and the meeting of the two along y = 10
    points = canvas.points.tolist()
    assert [25.0, 10.0] not in points
    assert [30.0, 20.0] in points
    assert [30.0, 10.0] not in points


def test_crossing_lines_are_labeled_at_their_ends_and_where_they_cross():
    canvas = plain_canvas()
    canvas.line(np.array([10.0, 30.0]), np.array([50.0, 30.0]), 2, 200)
    canvas.line(np.array([30.0, 10.0]), np.array([30.0, 50.0]), 2, 100)
    expected = [[10, 30], [50, 30], [30, 10], [30, 50], [30, 30]]
    np.testing.assert_allclose(sorted_points(canvas.points), sorted_points(np.array(expected)))
