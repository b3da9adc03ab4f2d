"""Random scenes with parallax: pieces of a photograph at different depths, seen by several cameras.

A scene is a set of textured triangles. Each triangle maps to each view by a homography, so views are warped exactly, a
depth buffer finds hidden surfaces, and the place of a pixel in any other view is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros.features import Image

Doubles = npt.NDArray[np.float64]

GRID = (8, 6)
"""Columns and rows of cells, of two triangles each, that a surface consists of."""

HIDDEN = 0.98
"""A point is hidden where the view shows something nearer than this part of its depth."""


@dataclass(frozen=True)
class SceneConfig:
    """How scenes are shaped, and from where cameras see them.

    Args:
        planes: share of the scenes that are one plane, whose views are related by homographies.
        surfaces: share of the scenes that are one smooth surface; the rest consists of pieces that hide each other.
        slope: how much the inverse depth of a plane changes across the photograph, at most, as a part of its mean.
        relief: standard deviation of the logarithm of a surface's depth.
        step: greatest factor by which a piece is nearer or farther than the photograph's distance.
        visible: least and greatest part of the photograph that a view shows, along each side.
        distance: greatest factor by which a camera is nearer or farther than the photograph's distance.
        turn: greatest angle in radians by which a camera moves sideways around what it looks at; half as much up and
            down. Small angles are likelier, by a triangular distribution.
        roll: greatest angle in radians by which a camera turns about its axis, likewise.
    """

    planes: float = 0.35
    surfaces: float = 0.25
    slope: float = 0.6
    relief: float = 0.12
    step: float = 1.5
    visible: tuple[float, float] = (0.55, 1.0)
    distance: float = 1.4
    turn: float = 0.9
    roll: float = 0.5


@dataclass(frozen=True, eq=False)
class Scene:
    """Textured triangles in space; x is right, y down, and z forward from the camera that took the photograph."""

    corners: Doubles
    """(T, 3, 3), the three corners of each triangle as columns. The last triangle stands for the plane of the backdrop,
    which is seen wherever no other triangle is."""
    texture: Doubles
    """(T, 3, 3), maps weights of the corners to homogeneous pixels of the photograph, the last one to those of the
    backdrop."""
    size: tuple[int, int]
    """(width, height) of photograph and backdrop."""


@dataclass(frozen=True, eq=False)
class View:
    """Which triangles a camera sees."""

    triangles: npt.NDArray[np.int32]
    """(H, W), the triangle that each pixel shows."""
    projection: Doubles
    """(T, 3, 3), maps weights of a triangle's corners to homogeneous pixels of the view; with weights that add up to 1,
    the third coordinate is the depth."""
    inverse: Doubles
    """(T, 3, 3), the inverse of projection, of the triangles whose front faces the camera."""


def sample_scene(rng: np.random.Generator, size: tuple[int, int], config: SceneConfig) -> Scene:
    """A random scene of a photograph of this (width, height)."""
    kind = rng.random()
    flat = kind < config.planes
    pieces = 1 if kind < config.planes + config.surfaces else int(rng.integers(2, 6))
    cells = _cells(rng, (1, 1) if flat else GRID)
    # A cell belongs to the piece whose seed is nearest to its center.
    owner = np.linalg.norm(cells.mean(axis=1)[:, None] - rng.random((pieces, 2)), axis=-1).argmin(axis=1)
    nearness = np.empty(cells.shape[:2])
    for piece in range(pieces):
        step = config.step ** rng.uniform(-1, 1) if pieces > 1 else 1.0
        plane = 1 + (cells - 0.5) @ (rng.uniform(-0.5, 0.5, 2) * config.slope)
        nearness[owner == piece] = step * plane[owner == piece]
    if not flat:
        nearness = (nearness * np.exp(config.relief * _waves(rng)(cells))).clip(0.4, 1.8)
    camera = camera_matrix(max(size), size)
    corners = homogeneous(cells * size - 0.5) @ np.linalg.inv(camera).T / nearness[..., None]
    corners = corners[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3, 3).transpose(0, 2, 1)
    wall = homogeneous(np.array([[-0.5, -0.5], [1.5, -0.5], [-0.5, 1.5]]) * size - 0.5).T
    wall_depth = 1.2 * corners[:, 2].max()
    return Scene(
        np.concatenate([corners, wall_depth * (np.linalg.inv(camera) @ wall)[None]]),
        np.concatenate([camera @ corners, wall[None]]),
        size,
    )


def sample_view(rng: np.random.Generator, scene: Scene, size: tuple[int, int], config: SceneConfig) -> View:
    """What a random camera with images of this (width, height) sees of a scene."""
    whole = np.array(scene.size)
    part, distance = rng.uniform(*config.visible), config.distance ** rng.uniform(-1, 1)
    turn, tilt, roll = rng.triangular(-1, 0, 1, 3) * [config.turn, config.turn / 2, config.roll]
    middle = (0.5 + rng.uniform(-0.5, 0.5, 2) * (1 - part)) * whole - 0.5
    photographer = camera_matrix(max(scene.size), scene.size)
    target = np.linalg.inv(photographer) @ homogeneous(middle)
    zoom = (size / (part * whole)).max()  # pixels of the view per pixel of the photograph, at the target
    orientation = _rotation(2, roll) @ _rotation(0, tilt) @ _rotation(1, turn)
    corners = orientation @ (scene.corners - target[:, None]) + np.array([[0], [0], [distance]])
    return render_triangles(camera_matrix(zoom * distance * max(scene.size), size) @ corners, size)


def render_triangles(projection: Doubles, size: tuple[int, int]) -> View:
    """Find the nearest triangle at each pixel of a view of this (width, height); projection (T, 3, 3) as in View."""
    facing = _faces(projection)
    inverse = np.linalg.inv(np.where(facing[:, None, None], projection, np.eye(3)))
    x, y = np.arange(size[0]), np.arange(size[1])[:, None]
    triangles = np.full(size[::-1], len(projection) - 1, np.int32)
    backdrop = inverse[-1].sum(axis=0)
    nearest = backdrop[0] * x + backdrop[1] * y + backdrop[2]
    for index in np.flatnonzero(facing[:-1]):
        corners = projection[index]
        box: tuple[slice, slice] = np.s_[:, :]
        if (corners[2] > 0).all():
            pixels = corners[:2] / corners[2]
            (left, top), (right, bottom) = np.floor(pixels.min(axis=1)), np.ceil(pixels.max(axis=1)) + 1
            box = np.s_[int(max(top, 0)) : int(max(bottom, 0)), int(max(left, 0)) : int(max(right, 0))]
        weights = [a * x[box[1]] + b * y[box[0]] + c for a, b, c in inverse[index]]
        nearness = weights[0] + weights[1] + weights[2]  # 1 / depth
        shown = (np.minimum(np.minimum(weights[0], weights[1]), weights[2]) >= -1e-9) & (nearness > nearest[box])
        triangles[box][shown] = index
        nearest[box][shown] = nearness[shown]
    return View(triangles, projection, inverse)


def paint(view: View, scene: Scene, photograph: Image, backdrop: Image) -> Image:
    """The image (H, W) of a view; photograph and backdrop are images of the scene's size."""
    height, width = view.triangles.shape
    pixels = homogeneous(np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1))
    homographies = scene.texture @ view.inverse
    texture = np.einsum('hwij,hwj->hwi', homographies[view.triangles], pixels)
    position = (texture[..., :2] / texture[..., 2:]).clip(-1e4, 1e4).astype(np.float32)
    step = float(np.median(np.abs(np.diff(position[::8], axis=1)).max(axis=-1)))  # pixels of the photograph
    images = []
    for source in (photograph, backdrop):
        if step > 1:  # against aliasing
            source = np.asarray(cv2.GaussianBlur(source, (0, 0), 0.4 * step), np.uint8)
        images.append(cv2.remap(source, position[..., 0], position[..., 1], cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT))
    return np.where(view.triangles == len(scene.corners) - 1, images[1], images[0]).astype(np.uint8)


def transfer(points: npt.NDArray[np.floating], source: View, target: View) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """Map points (N, 2) from pixels of one view of a scene to pixels of another.

    Returns:
        (N, 2), pixels of the target, and (N,) whether the target shows the points: they are in its image, and nothing
        hides them.
    """
    size = np.array(target.triangles.shape[::-1])
    triangles = _at(source.triangles, points)
    weights = np.einsum('nij,nj->ni', source.inverse[triangles], homogeneous(points))
    weights /= weights.sum(axis=1, keepdims=True)
    projected = np.einsum('nij,nj->ni', target.projection[triangles], weights)
    depth = projected[:, 2]
    moved = projected[:, :2] / np.where(np.abs(depth) > 1e-9, depth, np.nan)[:, None]
    inside = (depth > 0) & ((moved >= -0.5) & (moved < size - 0.5)).all(axis=1)
    moved_inside = np.where(inside[:, None], moved, 0)
    seen = _at(target.triangles, moved_inside)
    nearness = np.einsum('nij,nj->n', target.inverse[seen], homogeneous(moved_inside))
    return moved, inside & _faces(target.projection)[triangles] & (nearness * depth * HIDDEN <= 1)


def camera_matrix(focal_length: float, size: tuple[int, int]) -> Doubles:
    """The (3, 3) matrix of a camera whose axis goes through the center of its images of this (width, height)."""
    width, height = size
    return np.array([[focal_length, 0, (width - 1) / 2], [0, focal_length, (height - 1) / 2], [0, 0, 1]])


def homogeneous(points: npt.NDArray[np.floating]) -> Doubles:
    """(..., 2) points with a third coordinate 1, (..., 3)."""
    return np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1)


def _cells(rng: np.random.Generator, shape: tuple[int, int]) -> Doubles:
    """The unit square in cells of random shape: (columns · rows, 4, 2), corners clockwise from the top left."""
    x, y = np.meshgrid(*(np.linspace(0, 1, count + 1) for count in shape))
    grid = np.stack([x, y], axis=-1)
    inner = grid[1:-1, 1:-1]
    inner += rng.uniform(-0.3, 0.3, inner.shape) / shape
    return np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], axis=2).reshape(-1, 4, 2)


def _waves(rng: np.random.Generator) -> Callable[[Doubles], Doubles]:
    """A random smooth function on the unit square, of points (..., 2), with mean 0 and standard deviation 1."""
    directions, phases = rng.normal(0, 2 * np.pi, (4, 2)), rng.uniform(0, 2 * np.pi, 4)
    return lambda points: np.cos(points @ directions.T + phases).sum(axis=-1) / np.sqrt(2)


def _rotation(axis: int, angle: float) -> Doubles:
    return np.asarray(cv2.Rodrigues(np.eye(3)[axis] * angle)[0], np.float64)


def _faces(projection: Doubles) -> npt.NDArray[np.bool_]:
    """Whether triangles show their front; one that is seen edge-on does not."""
    return np.asarray(np.linalg.det(projection) > 1e-9)


def _at(triangles: npt.NDArray[np.int32], points: npt.NDArray[np.floating]) -> npt.NDArray[np.int32]:
    """The triangles at the pixels that are nearest to points."""
    x, y = np.rint(points).astype(np.intp).T.clip(0, [[side - 1] for side in triangles.shape[::-1]])
    return triangles[y, x]
