"""Cameras as COLMAP describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from superpoint_ros.calibration import read_camera_info
from superpoint_ros.config import check, option

COLMAP_CENTER = 0.5
"""Where COLMAP has the center of the top-left pixel, in x and y."""

MAX_ERROR = 2.0
"""Largest distance of a keypoint from the geometry, in pixels that the network sees, where its error is one or two."""


@dataclass(frozen=True)
class CameraConfig:
    """The COLMAP camera, and which images share it."""

    camera_model: str = option('SIMPLE_RADIAL', "COLMAP's camera model, such as PINHOLE, OPENCV or OPENCV_FISHEYE.")
    camera_params: str = option(
        '',
        'Its parameters as COLMAP writes them, separated by commas; if not given, from camera_info in a bag, else '
        'guessed from EXIF or the size of the image.',
    )
    camera_mode: str = option(
        'per_folder',
        'Images with the same camera: those of a folder or topic, all, none, or those with equal EXIF data.',
        choices=('per_folder', 'single', 'per_image', 'auto'),
    )

    def __post_init__(self) -> None:
        check(self)


def camera_of(name: str, cameras: Mapping[str, CameraConfig]) -> CameraConfig:
    """The camera of an image: that of its folder, or else ''."""
    return cameras.get(PurePosixPath(name).parent.as_posix(), cameras[''])


def from_camera_info(info: Any, rectified: bool = False) -> CameraConfig | None:
    """The camera of a sensor_msgs/CameraInfo of ROS 1 or ROS 2; None if it is not calibrated or COLMAP has no model.

    It is in pixels of the images, rectified or not, as in read_camera_info.

    Source: COLMAP's src/colmap/sensor/models.h, whose order of parameters is that of OpenCV: k1, k2, p1, p2, k3, ….
    """
    try:
        calibration = read_camera_info(info, rectified)
    except ValueError:
        return None
    (fx, _, cx), (_, fy, cy), _ = calibration.matrix.tolist()
    d = calibration.distortion.tolist()
    if not any(d):
        model, d = 'PINHOLE', []
    elif info.distortion_model == 'equidistant' and len(d) == 4:
        model = 'OPENCV_FISHEYE'
    elif info.distortion_model == 'plumb_bob' and not any(d[4:]):
        model, d = 'OPENCV', d[:4]
    elif info.distortion_model in ('plumb_bob', 'rational_polynomial') and len(d) <= 8:
        model, d = 'FULL_OPENCV', d + [0.0] * (8 - len(d))
    else:
        return None
    return CameraConfig(model, ','.join(map(str, (fx, fy, cx + COLMAP_CENTER, cy + COLMAP_CENTER, *d))))
