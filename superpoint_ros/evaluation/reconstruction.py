"""Reconstructions of images with known camera poses, beside COLMAP's own SIFT."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap

from superpoint_ros.evaluation.pose_pairs import PosePair
from superpoint_ros.evaluation.report import Report, Row, table
from superpoint_ros.extractor import Extractor
from superpoint_ros.mapping import colmap
from superpoint_ros.mapping.build import build_database
from superpoint_ros.mapping.cameras import COLMAP_CENTER, CameraConfig
from superpoint_ros.mapping.pairs import exhaustive
from superpoint_ros.matching import Matcher

Poses = Mapping[str, npt.NDArray[np.floating]]
"""(4, 4) transforms from world to camera, by the name of the image."""

Build = Callable[[Path, Sequence[str], Path, CameraConfig], tuple[Path, float]]
"""Makes a database of images, and gives the greatest reprojection error in pixels of an observation."""

SIFT = f'COLMAP {pycolmap.__version__} SIFT'

COLUMNS = {
    'variant': 'scene, by its first image',
    'method': 'features',
    'images': 'images#',
    'registered': 'registered#',
    'points': 'points#',
    'length': 'track length',
    'reprojection': 'reprojection error (px)',
    'angle': 'rotation error (°)',
    'distance': 'position error, RMS',
}


def scenes(pairs: Sequence[PosePair]) -> list[Poses]:
    """The poses of all images that pairs connect, from the first image of each connected scene."""
    steps: dict[str, list[tuple[str, npt.NDArray[np.floating]]]] = defaultdict(list)
    for pair in pairs:
        first, second = pair.names
        steps[first].append((second, pair.pose))
        steps[second].append((first, np.linalg.inv(pair.pose)))
    found: list[Poses] = []
    for start in steps:
        if any(start in scene for scene in found):
            continue
        poses: dict[str, npt.NDArray[np.floating]] = {start: np.eye(4)}
        waiting = [start]
        while waiting:
            name = waiting.pop()
            for other, pose in steps[name]:
                if other not in poses:
                    poses[other] = pose @ poses[name]
                    waiting.append(other)
        found.append(poses)
    return found


def pose_errors(reconstruction: Any, truth: Poses) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How far the cameras of a pycolmap.Reconstruction are from the truth, after a similarity transform of its world.

    The transform is the best for the camera positions (Umeyama, PAMI 1991).

    Returns:
        (N,) angles between the rotations in degrees, and (N,) distances between the positions in units of the truth.
    """
    found = {image.name: image.cam_from_world() for image in reconstruction.images.values() if image.has_pose}
    names = sorted(found)
    centers = np.array([found[name].inverse().translation for name in names])
    true_centers = np.array([np.linalg.inv(truth[name])[:3, 3] for name in names])
    aligned = pycolmap.estimate_sim3d(centers, true_centers)
    if aligned is None:
        raise ValueError(f'{len(names)} cameras are too few to be compared with their true poses')
    angles = []
    for name in names:
        turn = found[name].rotation.matrix() @ aligned.rotation.matrix().T @ truth[name][:3, :3].T
        angles.append(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    return np.array(angles), np.linalg.norm(aligned * centers - true_centers, axis=1)


def measure(
    pairs: Sequence[PosePair], folder: Path, extractors: Mapping[str, Extractor], matcher: Matcher, output: Path
) -> str:
    """Reconstruct every scene with calibrated cameras, from each model's features and from COLMAP's SIFT.

    All pairs of images of a scene are matched. SIFT, its matching and its verification have COLMAP's defaults. Returns
    the report in Markdown, and writes reconstruction.md and reconstruction.json.
    """
    builders: dict[str, Build] = {
        name: partial(_build, extractor=extractor, matcher=matcher) for name, extractor in extractors.items()
    }
    rows: list[Row] = []
    for truth in scenes(pairs):
        camera = _camera([pair for pair in pairs if pair.names[0] in truth])
        for method, build in {**builders, SIFT: _build_sift}.items():
            with TemporaryDirectory() as scratch:
                database, max_error = build(folder, sorted(truth), Path(scratch), camera)
                parts = colmap.reconstruct(database, folder, Path(scratch) / 'sparse', max_error, refine_cameras=False)
            row: Row = {'variant': min(truth), 'method': method, 'images': len(truth), 'registered': 0}
            rows.append(row | (_row(max(parts, key=lambda part: part.num_reg_images()), truth) if parts else {}))
    models = [f'- {name}: {e.runtime.name} {e.runtime.precision}, {e.config}' for name, e in extractors.items()]
    sections = ['\n'.join([*models, f'- {matcher}']), table(COLUMNS, rows)]
    data = {'models': models, 'scenes': rows}
    report = Report('reconstruction', str(folder), (), output)
    return report.finish('Reconstructions with COLMAP', sections, data)


def _row(part: Any, truth: Poses) -> Row:
    angles, distances = pose_errors(part, truth)
    return {
        'registered': part.num_reg_images(),
        'points': part.num_points3D(),
        'length': part.compute_mean_track_length(),
        'reprojection': part.compute_mean_reprojection_error(),
        'angle': float(angles.mean()),
        'distance': float(np.sqrt(np.mean(distances**2))),
    }


def _camera(pairs: Sequence[PosePair]) -> CameraConfig:
    matrices = [matrix for pair in pairs for matrix in pair.cameras]
    if any(np.any(matrix != matrices[0]) for matrix in matrices):
        raise ValueError(f'{pairs[0].names[0]} and the other images of its scene: expected one camera matrix for all')
    (fx, _, cx), (_, fy, cy) = matrices[0][:2]
    params = ','.join(map(str, (fx, fy, cx + COLMAP_CENTER, cy + COLMAP_CENTER)))
    return CameraConfig('PINHOLE', params, 'single')


def _build(
    folder: Path, names: Sequence[str], scratch: Path, camera: CameraConfig, extractor: Extractor, matcher: Matcher
) -> tuple[Path, float]:
    built = build_database(folder, names, scratch, extractor, matcher, exhaustive, {'': camera})
    if built.failed:
        raise ValueError('; '.join(built.failed))
    return built.path, built.max_error


def _build_sift(folder: Path, names: Sequence[str], scratch: Path, camera: CameraConfig) -> tuple[Path, float]:
    database = scratch / 'database.db'
    options = pycolmap.ImageReaderOptions(camera_model=camera.camera_model, camera_params=camera.camera_params)
    mode = pycolmap.CameraMode.SINGLE
    pycolmap.extract_features(database, folder, image_names=names, camera_mode=mode, reader_options=options)
    pycolmap.match_exhaustive(database)
    return database, pycolmap.IncrementalMapperOptions().filter_max_reproj_error
