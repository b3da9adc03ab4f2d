"""Intrinsic calibration of a camera, from sensor_msgs/CameraInfo. Needs no ROS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from superpoint_ros.geometry import crop_transform, resize_transform


@dataclass(frozen=True, eq=False)
class Calibration:
    """Camera matrix and lens distortion.

    Args:
        matrix: (3, 3) float64, K.
        distortion: (D,) float64 in OpenCV's order; empty if images are rectified.
        fisheye: whether the coefficients are of OpenCV's fisheye model ('equidistant').
    """

    matrix: npt.NDArray[np.float64]
    distortion: npt.NDArray[np.float64]
    fisheye: bool

    def undistort(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Points (M, 2) in pixels where a lens without distortion would show them."""
        if not self.distortion.any() or not len(points):
            return points
        undistort = cv2.fisheye.undistortPoints if self.fisheye else cv2.undistortPoints
        undistorted = undistort(points[:, None].astype(np.float64), self.matrix, self.distortion, P=self.matrix)
        return np.asarray(undistorted[:, 0], np.float64)


def read_camera_info(message: Any, rectified: bool) -> Calibration:
    """The calibration in a sensor_msgs/CameraInfo.

    Args:
        message: of ROS 2 or ROS 1, from rclpy or rosbags.
        rectified: whether the images are rectified; then K is the left part of P, without distortion.

    Returns:
        The calibration in pixels of the image: a CameraInfo has K and P of the full resolution, and the binning and the
        region of interest that lead from there to the image.

    Raises:
        ValueError: the camera is not calibrated, or its calibration cannot be used; one sentence says why.
    """
    k, d, p = (message.k, message.d, message.p) if hasattr(message, 'k') else (message.K, message.D, message.P)
    matrix = np.array(p).reshape(3, 4)[:, :3] if rectified else np.array(k).reshape(3, 3)
    if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise ValueError('camera_info has focal length 0: the camera is not calibrated')
    distortion = np.array([] if rectified else d, np.float64)
    if not (np.isfinite(matrix).all() and np.isfinite(distortion).all()):
        raise ValueError('camera_info has a camera matrix or coefficients that are not finite numbers')
    roi, binning = message.roi, [max(1, factor) for factor in (message.binning_x, message.binning_y)]
    resize = resize_transform(1 / binning[0], 1 / binning[1])
    matrix = resize @ crop_transform(roi.x_offset, roi.y_offset) @ matrix
    fisheye = message.distortion_model == 'equidistant'
    allowed = (4,) if fisheye else (4, 5, 8, 12, 14)
    if distortion.any() and len(distortion) not in allowed:
        raise ValueError(
            f'camera_info has {len(distortion)} coefficients of {message.distortion_model!r}, '
            f'expected {" or ".join(map(str, allowed))}'
        )
    return Calibration(matrix, distortion, fisheye)
