"""COLMAP's database and its incremental mapper, through pycolmap.

COLMAP has the centers of pixels at 0.5 (the top-left corner of an image is (0, 0)), this package at integers: keypoints
move by half a pixel on the way in. Descriptors stay outside: COLMAP has no type for them, and maps without.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from rich.console import Console
from rich.progress import Progress, track

from superpoint_ros.features import Features
from superpoint_ros.mapping.cameras import COLMAP_CENTER, CameraConfig, camera_of
from superpoint_ros.mapping.pairs import Pair
from superpoint_ros.matching import Matcher

SEED = 0
"""Seed of the random numbers in COLMAP."""


def check_camera(camera: CameraConfig) -> None:
    """Check that COLMAP knows a camera.

    Raises:
        ValueError: it has no such model, or the model has another number of parameters.
    """
    known = [name for name in pycolmap.CameraModelId.__members__ if name != 'INVALID']
    if camera.camera_model not in known:
        raise ValueError(f'camera_model: {camera.camera_model!r} is not one of {", ".join(known)}')
    example = pycolmap.Camera.create_from_model_name(0, camera.camera_model, 1.0, 1, 1)
    if camera.camera_params and not example.set_params_from_string(camera.camera_params):
        raise ValueError(f'camera_params: expected numbers for {example.params_info}, got {camera.camera_params!r}')


def add_images(
    database: Path,
    folder: Path,
    names: Sequence[str],
    features: Callable[[str], Features],
    cameras: Mapping[str, CameraConfig],
) -> dict[str, str]:
    """Add images with their cameras and keypoints to a new or existing database; those that it has stay as they are.

    Arguments as in build.build_database.

    Returns:
        For each image that COLMAP does not take, by name, a sentence on why.
    """
    groups: dict[CameraConfig, list[str]] = {}
    for name in names:
        groups.setdefault(camera_of(name, cameras), []).append(name)
    with pycolmap.Database.open(database):
        pass  # import_images needs one
    for camera, members in groups.items():
        pycolmap.import_images(
            database,
            folder,
            camera_mode=pycolmap.CameraMode(camera.camera_mode.upper()),
            image_names=members,
            options=pycolmap.ImageReaderOptions(camera_model=camera.camera_model, camera_params=camera.camera_params),
        )
    failed = {}
    with pycolmap.Database.open(database) as opened, pycolmap.DatabaseTransaction(opened):
        for name in names:
            image = opened.read_image_with_name(name)
            if image is None:
                failed[name] = f'{folder / name}: COLMAP cannot read it, or its size is not that of its camera'
            elif not opened.exists_keypoints(image.image_id):
                opened.write_keypoints(image.image_id, features(name).keypoints + np.float32(COLMAP_CENTER))
    return failed


def largest_size(database: Path) -> tuple[int, int]:
    """Width and height of the images of a database with the longest side."""
    with pycolmap.Database.open(database) as opened:
        return max(((camera.width, camera.height) for camera in opened.read_all_cameras()), key=max, default=(1, 1))


def match_pairs(
    database: Path,
    features: Callable[[str], Features],
    pairs: Sequence[Pair],
    matcher: Matcher,
    max_error: float,
) -> None:
    """Match pairs of images in a database, and verify their geometry as COLMAP does; pairs that it has are kept.

    The largest error is that of a match from the epipolar geometry, in pixels.
    """
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed, options.ransac.max_error = SEED, max_error
    with pycolmap.Database.open(database) as opened:
        images = {image.name: image for image in opened.read_all_images()}
        cameras = {camera.camera_id: camera for camera in opened.read_all_cameras()}
        missing = [
            (images[name0], images[name1])
            for name0, name1 in pairs
            if not opened.exists_two_view_geometry(images[name0].image_id, images[name1].image_id)
        ]
        for image0, image1 in track(missing, 'matching', console=Console(stderr=True)):
            features0, features1 = features(image0.name), features(image1.name)
            matches = matcher(features0, features1).indices
            geometry = pycolmap.estimate_two_view_geometry(
                cameras[image0.camera_id],
                features0.keypoints.astype(np.float64) + COLMAP_CENTER,
                cameras[image1.camera_id],
                features1.keypoints.astype(np.float64) + COLMAP_CENTER,
                matches,
                options,
            )
            with pycolmap.DatabaseTransaction(opened):
                opened.write_matches(image0.image_id, image1.image_id, matches)
                opened.write_two_view_geometry(image0.image_id, image1.image_id, geometry)


def read_matches(database: Path, pairs: Sequence[Pair]) -> dict[Pair, Any]:
    """The matches of pairs before verification, (M, 2) uint32: rows in the features of the two images."""
    with pycolmap.Database.open(database) as opened:
        ids = {image.name: image.image_id for image in opened.read_all_images()}
        return {pair: opened.read_matches(ids[pair[0]], ids[pair[1]]) for pair in pairs}


def summary(database: Path) -> str:
    """One line on a database."""
    with pycolmap.Database.open(database) as opened:
        return (
            f'{opened.num_images()} images, {opened.num_keypoints()} keypoints, {opened.num_matches()} matches, '
            f'{opened.num_inlier_matches()} of them verified, in {opened.num_verified_image_pairs()} pairs'
        )


def reconstruct(database: Path, folder: Path, output: Path, max_error: float, refine_cameras: bool = True) -> list[Any]:
    """Reconstruct cameras and points; each connected part becomes a COLMAP model, OUTPUT/0, OUTPUT/1, ….

    The output appears when all is done, and replaces an older one. The largest error is the reprojection error of an
    observation in pixels. Refining cameras includes focal lengths and distortion.

    Returns:
        The parts as pycolmap.Reconstruction, in the order of their folders.
    """
    options = pycolmap.IncrementalPipelineOptions(random_seed=SEED)
    options.ba_refine_focal_length = options.ba_refine_extra_params = refine_cameras
    options.mapper.filter_max_reproj_error = max_error
    partial = output.with_name(f'{output.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)
    with pycolmap.Database.open(database) as opened:
        images = opened.num_images()
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task('reconstructing', total=images)
        parts = pycolmap.incremental_mapping(
            database,
            folder,
            partial,
            options,
            initial_image_pair_callback=lambda: progress.update(bar, completed=2),
            next_image_callback=lambda: progress.advance(bar),
        )
    shutil.rmtree(output, ignore_errors=True)
    partial.replace(output)
    return [parts[number] for number in sorted(parts)]


def describe(part: Any, images: int) -> str:
    """One line on a part of a reconstruction out of so many images."""
    return (
        f'{part.num_reg_images()} of {images} images registered, {part.num_points3D()} points, '
        f'mean track length {part.compute_mean_track_length():.2f}, '
        f'mean reprojection error {part.compute_mean_reprojection_error():.2f} px'
    )
