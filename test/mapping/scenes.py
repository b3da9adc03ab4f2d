"""Scenes with a known motion: points with descriptors of their own, and a textured room."""

from functools import lru_cache

import cv2
import numpy as np

from superpoint_ros.features import Features

SIZE = (320, 240)
FOCAL_LENGTH = 300.0
CAMERA = np.array([[FOCAL_LENGTH, 0, 159.5], [0, FOCAL_LENGTH, 119.5], [0, 0, 1]])
COLMAP_PARAMS = f'{FOCAL_LENGTH},{FOCAL_LENGTH},160,120'  # COLMAP has the center of the top-left pixel at (0.5, 0.5)


def poses(count):
    """(4, 4) transforms from world to camera: an arc around the origin, looking at it from a distance of 5."""
    found = []
    for angle in np.linspace(-0.4, 0.4, count):
        rotation, _ = cv2.Rodrigues(np.array([0.05 * np.sin(7 * angle), angle, 0.0]))
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, (0.3 * np.cos(3 * angle), -0.2 * angle, 5.0)
        found.append(pose)
    return found


def project(points, pose):
    """(N, 2) pixels with centers at integers, and (N,) depths of (N, 3) points."""
    seen = points @ pose[:3, :3].T + pose[:3, 3]
    pixels = seen @ CAMERA.T
    return pixels[:, :2] / pixels[:, 2:], pixels[:, 2]


def synthetic_features(pose, rng, count=300, noise=0.0):
    """Features of the same `count` points for every pose, in an order of their own."""
    world = np.random.default_rng(0)
    points = world.uniform(-1.2, 1.2, (count, 3))
    descriptors = world.normal(size=(count, 64))
    pixels, _ = project(points, pose)
    pixels += rng.normal(0, noise, pixels.shape)
    inside = np.flatnonzero(np.all((pixels >= 0) & (pixels <= np.array(SIZE) - 1), axis=1))
    rows = rng.permutation(inside)
    seen = descriptors[rows] + 0.1 * rng.normal(size=(len(rows), 64))
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    scores = np.sort(rng.uniform(0.1, 1, len(rows)))[::-1]
    return Features(*(array.astype(np.float32) for array in (pixels[rows], scores.copy(), seen)), SIZE)


def room(pose):
    """The image of a textured corner of a room: a back wall, a side wall and a floor."""
    grid = np.stack([*np.meshgrid(*map(np.arange, SIZE)), np.ones(SIZE[::-1])], axis=-1)
    rays = grid @ np.linalg.inv(CAMERA).T @ pose[:3, :3]
    center = -pose[:3, :3].T @ pose[:3, 3]
    nearest, image = np.full(grid.shape[:2], np.inf), np.zeros(grid.shape[:2], np.uint8)
    for axis, position in ((2, 1.5), (0, -3.2), (1, 1.3)):
        with np.errstate(divide='ignore'):
            distances = (position - center[axis]) / rays[..., axis]
        hit = (distances > 0) & (distances < nearest)
        points = np.delete(center + distances[..., None] * rays, axis, axis=-1) * 100 + 800
        wall = cv2.remap(texture(axis), points.astype(np.float32), None, cv2.INTER_LINEAR)
        nearest[hit], image[hit] = distances[hit], wall[hit]
    return image


@lru_cache
def texture(number):
    """A wall with posters: polygons of random size and brightness."""
    rng = np.random.default_rng(number)
    wall = np.full((1600, 1600), 120, np.uint8)
    for _ in range(2500):
        corners = rng.uniform(0, 1600, 2) + rng.uniform(-40, 40, (4, 2))
        cv2.fillConvexPoly(wall, cv2.convexHull(corners.astype(np.int32)), int(rng.integers(256)), cv2.LINE_AA)
    return cv2.GaussianBlur(wall, None, 1.2)
