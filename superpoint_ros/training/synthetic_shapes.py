"""Synthetic Shapes (SuperPoint, arXiv 1712.07629, section 4): rendered corners whose positions are known exactly.

Each picture is drawn at SUPERSAMPLING times its size and averaged down, so corners lie at known fractions of a pixel.
As in the paper, labels are L-, T-, Y- and X-junctions and the ends of line segments, where they are visible.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros.features import Floats, Image
from superpoint_ros.geometry import UNIT_SQUARE, resize_transform, rotation, transform_points

Points = npt.NDArray[np.floating]

SUPERSAMPLING = 4
SHIFT = 4
"""Fractional bits of the coordinates that OpenCV draws with."""
MIN_DISTANCE = 6.0
"""Least distance of two labeled points in pixels."""
MIN_CONTRAST = 30
"""Least difference of the gray levels (of 255) of neighboring areas."""


def render(shape: str, rng: np.random.Generator, size: tuple[int, int] = (160, 120)) -> tuple[Image, Floats]:
    """Draw one of SHAPES.

    Returns:
        The image (H, W) of this (width, height), and the pixels (N, 2) of the visible corners, to a fraction.

    Raises:
        ValueError: no such shape.
    """
    if shape not in DRAWINGS:
        raise ValueError(f'shape {shape!r} is not one of {", ".join(SHAPES)}')
    for _ in range(20):
        canvas = Canvas(rng, size)
        DRAWINGS[shape](canvas, rng)
        points = canvas.points[((canvas.points >= 0) & (canvas.points <= np.array(size) - 1)).all(axis=1)]
        kept = thin(points, MIN_DISTANCE)
        if len(kept) == len(points):
            break
    return canvas.finish(rng), kept.astype(np.float32)


class Canvas:
    """A picture being drawn, with the points that are visible on it so far.

    Coordinates are pixels of the finished picture.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.size = size
        self.background = int(rng.integers(256))
        self.to_drawing = resize_transform(SUPERSAMPLING, SUPERSAMPLING)
        self.points: Points = np.empty((0, 2))
        self.fills: list[Points] = []
        self.outlines: list[Points] = []
        self.image = cv2.resize(
            _blobs(rng, size, self.background),
            (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING),
            interpolation=cv2.INTER_LINEAR,
        )

    def fill(self, polygon: Points, gray: int, corners: Points | None = None, outline: Points | None = None) -> None:
        """Paint a polygon, and label its corners and its junctions with the visible outlines of older ones.

        Args:
            polygon: (K, 2).
            gray: 0 to 255.
            corners: (N, 2), the points to label; None for the polygon's own.
            outline: (M, 2, 2), the segments that make junctions with others'; None for the polygon's edges.
        """
        segments = np.stack([polygon, np.roll(polygon, -1, axis=0)], axis=1) if outline is None else outline
        junctions = [self._junctions(segments, older) for older in range(len(self.outlines))]
        self.paint(polygon, gray)
        self.points = np.concatenate([self.points, polygon if corners is None else corners, *junctions])
        self.fills.append(polygon)
        self.outlines.append(segments)

    def line(self, start: Points, end: Points, thickness: float, gray: int) -> None:
        """Draw a thick segment; the middles of its ends are labeled."""
        segment = np.array([start, end])
        self.fill(thick(start, end, thickness), gray, segment, segment[None])

    def paint(self, polygon: Points, gray: int) -> None:
        """Paint a (K, 2) polygon; it hides the points below it, and adds none."""
        self.points = self.points[~inside(polygon, self.points)]
        drawn = transform_points(self.to_drawing, polygon) * 2**SHIFT
        cv2.fillPoly(self.image, [np.rint(drawn).astype(np.int32)], gray, cv2.LINE_8, SHIFT)

    def _junctions(self, segments: Points, older: int) -> Points:
        points = intersections(segments, self.outlines[older])
        for later in self.fills[older + 1 :]:
            points = points[~inside(later, points)]
        return points

    def gray(self, rng: np.random.Generator, *neighbors: int) -> int:
        """A gray that stands out from the background and from its neighbors."""
        taken = np.array([self.background, *neighbors])
        candidates = rng.integers(256, size=32)
        contrasts = np.abs(candidates[:, None] - taken).min(axis=1)
        enough = np.flatnonzero(contrasts >= MIN_CONTRAST)
        return int(candidates[enough[0] if enough.size else contrasts.argmax()])

    def finish(self, rng: np.random.Generator) -> Image:
        """The picture at its final size, often a little out of focus."""
        image = cv2.resize(self.image, self.size, interpolation=cv2.INTER_AREA)
        sigma = rng.uniform(-0.5, 1.0)
        return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0.3 else image, np.uint8)


def draw_lines(canvas: Canvas, rng: np.random.Generator) -> None:
    """A few segments, which may cross."""
    size = np.array(canvas.size)
    grays: list[int] = []
    for _ in range(rng.integers(1, 7)):
        start, end = rng.uniform(0, size - 1, (2, 2))
        if np.linalg.norm(end - start) < 0.2 * size.min() or _grazes(start, end, canvas.outlines):
            continue
        grays.append(canvas.gray(rng, *grays))
        canvas.line(start, end, rng.uniform(1, 0.03 * size.min() + 1), grays[-1])


def draw_polygon(canvas: Canvas, rng: np.random.Generator) -> None:
    """One polygon, large or small."""
    size = np.array(canvas.size)
    center = rng.uniform(0.25, 0.75, 2) * size
    canvas.fill(random_polygon(rng, center, rng.uniform(0.12, 0.48) * size.min()), canvas.gray(rng))


def draw_polygons(canvas: Canvas, rng: np.random.Generator) -> None:
    """Several polygons, which may hide parts of each other."""
    size = np.array(canvas.size)
    grays: list[int] = []
    for _ in range(rng.integers(2, 7)):
        grays.append(canvas.gray(rng, *grays))
        polygon = random_polygon(rng, rng.uniform(0.1, 0.9, 2) * size, rng.uniform(0.1, 0.28) * size.min())
        canvas.fill(polygon, grays[-1])


def draw_ellipses(canvas: Canvas, rng: np.random.Generator) -> None:
    """Ellipses that do not touch: there are no corners."""
    size = np.array(canvas.size)
    discs: list[tuple[Points, float]] = []
    for _ in range(rng.integers(2, 25)):
        center, radius = rng.uniform(0, size - 1), rng.uniform(0.04, 0.25) * size.min()
        if any(np.linalg.norm(center - other) < radius + apart + 2 for other, apart in discs):
            continue
        discs.append((center, radius))
        turns = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        axes = radius * np.array([1, rng.uniform(0.4, 1)])
        circle = np.stack([np.cos(turns), np.sin(turns)], axis=1) * axes
        canvas.paint(circle @ rotation(rng.uniform(0, np.pi)) + center, canvas.gray(rng))


def draw_star(canvas: Canvas, rng: np.random.Generator) -> None:
    """Segments from one point."""
    size = np.array(canvas.size)
    branches = rng.integers(3, 7)
    center = rng.uniform(0.3, 0.7, 2) * size
    turns = rng.uniform(0, 2 * np.pi) + 2 * np.pi * (np.arange(branches) + rng.uniform(-0.3, 0.3, branches)) / branches
    lengths = rng.uniform(0.15, 0.5, branches) * size.min()
    tips = center + lengths[:, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    thickness = rng.uniform(1, 0.03 * size.min() + 1)
    for tip in tips:
        canvas.paint(thick(center, tip, thickness), canvas.gray(rng))
    canvas.points = np.concatenate([center[None], tips])


def draw_checkerboard(canvas: Canvas, rng: np.random.Generator) -> None:
    """A board of fields in two grays, seen at an angle."""
    columns, rows = rng.integers(3, 8, 2)
    _draw_fields(canvas, rng, np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1))


def draw_stripes(canvas: Canvas, rng: np.random.Generator) -> None:
    """A board of one row with stripes of unequal width, seen at an angle."""
    widths = rng.uniform(0.4, 1, rng.integers(3, 12))
    _draw_fields(canvas, rng, np.concatenate([[0], np.cumsum(widths)]) / widths.sum(), np.array([0.0, 1.0]))


def draw_cube(canvas: Canvas, rng: np.random.Generator) -> None:
    """The three visible faces of a cuboid."""
    size = np.array(canvas.size)
    turn, tilt, roll = rng.uniform(0.15, 0.35) * np.pi, rng.uniform(0.12, 0.35) * np.pi, rng.uniform(0, 2 * np.pi)
    x, y, z = rng.uniform(0.5, 1, 3)
    # The corner nearest to the eye is the origin, and the three edges that leave it run away from the eye.
    axes = np.array(
        [
            [np.cos(turn), np.sin(turn) * np.sin(tilt), np.sin(turn) * np.cos(tilt)],
            [-np.sin(turn), np.cos(turn) * np.sin(tilt), np.cos(turn) * np.cos(tilt)],
            [0, -np.cos(tilt), np.sin(tilt)],
        ]
    ) * np.array([[x], [y], [z]])
    # The origin, the ends of the edges x, y and z, and the corners xy, xz and yz.
    space = np.array([np.zeros(3), *axes, axes[0] + axes[1], axes[0] + axes[2], axes[1] + axes[2]])
    flat = space[:, :2] / (1 + rng.uniform(0, 0.3) * space[:, 2:])
    flat = (flat - flat.mean(axis=0)) @ rotation(roll)
    flat *= rng.uniform(0.25, 0.5) * size.min() / np.abs(flat).max()
    flat += rng.uniform(0.35, 0.65, 2) * size
    grays: list[int] = []
    for face in ([0, 1, 4, 2], [0, 1, 5, 3], [0, 2, 6, 3]):
        grays.append(canvas.gray(rng, *grays))
        canvas.paint(flat[face], grays[-1])
    canvas.points = flat


def draw_gaussian_noise(canvas: Canvas, rng: np.random.Generator) -> None:
    """Noise alone: there are no corners."""
    width, height = canvas.size
    noise = rng.standard_normal((height, width), np.float32) * rng.uniform(10, 60) + canvas.background
    noise = np.clip(noise, 0, 255).astype(np.uint8)
    canvas.image = cv2.resize(noise, None, fx=SUPERSAMPLING, fy=SUPERSAMPLING, interpolation=cv2.INTER_NEAREST)


DRAWINGS: dict[str, Callable[[Canvas, np.random.Generator], None]] = {
    'lines': draw_lines,
    'polygon': draw_polygon,
    'polygons': draw_polygons,
    'ellipses': draw_ellipses,
    'star': draw_star,
    'checkerboard': draw_checkerboard,
    'stripes': draw_stripes,
    'cube': draw_cube,
    'gaussian_noise': draw_gaussian_noise,
}
SHAPES = tuple(DRAWINGS)
"""Names of the shapes that `render` draws."""


def random_polygon(rng: np.random.Generator, center: Points, radius: float) -> Points:
    """Three to six corners (K, 2) around a center, none of them nearly flat or very sharp."""
    radius = max(radius, 2 * MIN_DISTANCE)
    while True:
        corners = rng.integers(3, 7)
        turns = np.sort(rng.uniform(0, 2 * np.pi, corners))
        reach = radius * rng.uniform(0.5, 1, corners)
        polygon = center + reach[:, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        sides = np.roll(polygon, -1, axis=0) - polygon
        lengths = np.linalg.norm(sides, axis=1)
        directions = sides / lengths[:, None]
        cosines = -(directions * np.roll(directions, 1, axis=0)).sum(axis=1)
        gaps = np.diff(turns, append=turns[0] + 2 * np.pi)
        if lengths.min() > MIN_DISTANCE and (np.abs(cosines) < np.cos(np.pi / 9)).all() and gaps.max() < np.pi:
            return polygon


def thick(start: Points, end: Points, thickness: float) -> Points:
    """(4, 2): the outline of a segment of this thickness in pixels, cut square at its ends."""
    along = (end - start) / np.linalg.norm(end - start)
    across = np.array([-along[1], along[0]]) * thickness / 2
    return np.array([start + across, end + across, end - across, start - across])


def intersections(segments0: Points, segments1: Points) -> Points:
    """(N, 2): where segments (K, 2, 2) cross other segments (M, 2, 2)."""
    start0, start1 = segments0[:, None, 0], segments1[None, :, 0]
    along0, along1 = segments0[:, None, 1] - start0, segments1[None, :, 1] - start1
    between = start1 - start0
    with np.errstate(divide='ignore', invalid='ignore'):
        denominator = _cross(along0, along1)
        position0 = _cross(between, along1) / denominator
        position1 = _cross(between, along0) / denominator
        points = start0 + position0[..., None] * along0
    return points[(position0 >= 0) & (position0 <= 1) & (position1 >= 0) & (position1 <= 1)]


def inside(polygon: Points, points: Points) -> npt.NDArray[np.bool_]:
    """(N,): which of (N, 2) points a polygon hides, those on its very edge included."""
    contour = polygon.astype(np.float32)
    return np.array([cv2.pointPolygonTest(contour, (x, y), True) >= -1 for x, y in points.tolist()], dtype=bool)


def thin(points: Points, distance: float) -> Points:
    """The points that are at least this far from all earlier points that are kept."""
    near = np.linalg.norm(points[:, None] - points, axis=-1) < distance
    kept: list[int] = []
    for index in range(len(points)):
        if not near[index, kept].any():
            kept.append(index)
    return points[kept]


def _draw_fields(canvas: Canvas, rng: np.random.Generator, columns: Points, rows: Points) -> None:
    width, height = canvas.size
    square = np.array(UNIT_SQUARE, np.float32)
    lengths = np.array([width, height]) * rng.uniform(0.35, 1, 2)
    quad = (square - 0.5 + rng.uniform(-0.12, 0.12, (4, 2))) * lengths @ rotation(rng.uniform(0, 2 * np.pi))
    quad = quad + np.array([width, height]) * rng.uniform(0.35, 0.65, 2)
    view = np.asarray(cv2.getPerspectiveTransform(square, quad.astype(np.float32)), np.float64)
    grid = transform_points(view, np.stack(np.meshgrid(columns, rows), axis=-1))
    first = canvas.gray(rng)
    grays = first, canvas.gray(rng, first)
    for i, j in np.ndindex(len(rows) - 1, len(columns) - 1):
        field = np.array([grid[i, j], grid[i, j + 1], grid[i + 1, j + 1], grid[i + 1, j]])
        canvas.paint(field, grays[(i + j) % 2])
    canvas.points = grid.reshape(-1, 2)


def _blobs(rng: np.random.Generator, size: tuple[int, int], gray: int) -> Image:
    """(H/4, W/4): soft spots on a uniform background."""
    width, height = -(-size[0] // 4), -(-size[1] // 4)
    image = np.full((height, width), gray, np.uint8)
    count = rng.integers(0, 20)
    centers, radii = rng.uniform(0, (width, height), (count, 2)), rng.uniform(0.05, 0.3, count) * height
    grays = np.clip(gray + rng.uniform(-25, 25, count), 0, 255)
    for (x, y), radius, spot in zip(centers.tolist(), radii.tolist(), grays.tolist(), strict=True):
        cv2.circle(image, (int(x), int(y)), int(radius), int(spot), -1)
    return np.asarray(cv2.blur(image, (9, 9)), np.uint8)


def _grazes(start: Points, end: Points, outlines: list[Points]) -> bool:
    """Whether a segment would meet another at an angle too sharp, or too near an end, to make a clear junction."""
    along = (end - start) / np.linalg.norm(end - start)
    for ((other_start, other_end),) in outlines:
        other = (other_end - other_start) / np.linalg.norm(other_end - other_start)
        crosses = len(intersections(np.array([[start, end]]), np.array([[other_start, other_end]])))
        if crosses and abs(_cross(along, other)) < np.sin(np.pi / 6):
            return True
        distances = [_distance(point, other_start, other_end) for point in (start, end)]
        distances += [_distance(point, start, end) for point in (other_start, other_end)]
        if min(distances) < MIN_DISTANCE:
            return True
    return False


def _distance(point: Points, start: Points, end: Points) -> float:
    along = end - start
    position = np.clip((point - start) @ along / (along @ along), 0, 1)
    return float(np.hypot(*(start + position * along - point)))


def _cross(a: Points, b: Points) -> Points:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
