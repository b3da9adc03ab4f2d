#!/usr/bin/env python3
"""Monocular visual odometry from the tracks of superpoint_matcher: an example of a subscriber to start from.

    python examples/visual_odometry.py --ros-args -r camera_info:=/camera/camera_info

Subscribes to tracks (sensor_msgs/PointCloud2) and camera_info, and publishes path (nav_msgs/Path; x forward, z up,
relative to the first camera). Between two keyframes, the essential matrix gives rotation and direction; the distance
follows from points that were triangulated before. As with any single camera, the scale is arbitrary: the first step has
length 1. There is no loop closure and no bundle adjustment, so it drifts by a few percent of the distance. Images of a
fisheye lens, and images that the camera bins or crops, are not supported.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import rclpy
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, PointCloud2

Array = npt.NDArray[np.float64]

TRACK = np.dtype([('id', '<u4'), ('age', '<u4'), ('x', '<f4'), ('y', '<f4'), ('score', '<f4')])
PARALLAX = 15.0
"""Median motion of the points since the last keyframe, in pixels, that makes a new keyframe."""
MIN_POINTS = 20
"""With fewer points in common with the last keyframe, the path continues from a new keyframe at the last pose."""
AXES = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
"""From the optical frame (x right, y down, z forward; REP 103) to the axes of a robot (x forward, z up)."""


@dataclass(frozen=True)
class Keyframe:
    """Ids and undistorted pixels (N, 2) of the tracks in an image; points in space by id, in this camera's frame."""

    ids: npt.NDArray[np.uint32]
    pixels: Array
    space: dict[int, Array]


class Odometry:
    """Estimates the pose of a camera from tracks; needs no ROS.

    Args:
        camera: (3, 3) camera matrix.
    """

    def __init__(self, camera: Array) -> None:
        self.rotation, self.position = np.eye(3), np.zeros(3)
        self._camera = camera
        self._last: Keyframe | None = None

    def update(self, ids: npt.NDArray[np.uint32], pixels: Array) -> bool:
        """Add the tracks of the next image; returns whether there is a new pose."""
        last = self._last
        if last is None:
            self._last = Keyframe(ids, pixels, {})
            return True
        common, before, now = np.intersect1d(last.ids, ids, return_indices=True)
        if len(common) < MIN_POINTS:
            self._last = Keyframe(ids, pixels, {})
            return False
        pixels0, pixels1 = last.pixels[before], pixels[now]
        if np.median(np.linalg.norm(pixels1 - pixels0, axis=1)) < PARALLAX:
            return False
        essential, mask = cv2.findEssentialMat(pixels0, pixels1, self._camera, cv2.USAC_MAGSAC, 0.999, 1.0)
        if essential is None or essential.shape != (3, 3):
            return False
        _, turn, shift, mask, homogeneous = cv2.recoverPose(
            essential, pixels0, pixels1, self._camera, distanceThresh=200.0, mask=mask
        )
        good = np.flatnonzero(mask.ravel())
        if len(good) < MIN_POINTS:
            return False
        space0 = (homogeneous[:3, good] / homogeneous[3, good]).T
        known = [(i, last.space[n]) for i, n in enumerate(common[good].tolist()) if n in last.space]
        scale = float(np.median([np.linalg.norm(p) / np.linalg.norm(space0[i]) for i, p in known])) if known else 1.0
        space1 = scale * (space0 @ turn.T + shift.ravel())
        # Points transform from camera 0 to camera 1 by x1 = turn·x0 + shift, so camera 1 is at −turnᵀ·shift.
        self.position = self.position - scale * self.rotation @ turn.T @ shift.ravel()
        self.rotation = self.rotation @ turn.T
        self._last = Keyframe(ids, pixels, dict(zip(common[good].tolist(), space1, strict=True)))
        return True


class VisualOdometry(Node):
    """Subscribes to tracks and publishes the path."""

    def __init__(self) -> None:
        super().__init__('visual_odometry')
        self._odometry: Odometry | None = None
        self._camera, self._distortion = np.eye(3), np.zeros(5)
        self._path = Path()
        self._path.header.frame_id = self.declare_parameter('frame_id', 'odom').value
        self._publisher = self.create_publisher(Path, 'path', 10)
        # Best effort, because it receives from both kinds of publishers, and many drivers publish that way.
        self.create_subscription(CameraInfo, 'camera_info', self._take_calibration, qos_profile_sensor_data)
        self.create_subscription(PointCloud2, 'tracks', self._take_tracks, QoSProfile(depth=100))

    def _take_calibration(self, info: CameraInfo) -> None:
        if self._odometry is None and info.k[0] > 0:
            self._camera, self._distortion = np.array(info.k).reshape(3, 3), np.array(info.d)
            self._odometry = Odometry(self._camera)

    def _take_tracks(self, message: PointCloud2) -> None:
        if self._odometry is None:
            self.get_logger().warning('nothing has arrived on camera_info', throttle_duration_sec=5)
            return
        tracks = np.frombuffer(message.data, TRACK)  # a view, not a copy
        if not len(tracks):
            return
        points = np.stack([tracks['x'], tracks['y']], axis=1).astype(np.float64)
        pixels = cv2.undistortPoints(points[:, None], self._camera, self._distortion, P=self._camera)[:, 0]
        if self._odometry.update(tracks['id'].copy(), pixels.astype(np.float64)):
            self._publish(message, self._odometry)

    def _publish(self, message: PointCloud2, odometry: Odometry) -> None:
        pose = PoseStamped()
        pose.header.stamp, pose.header.frame_id = message.header.stamp, self._path.header.frame_id
        position = AXES @ odometry.position
        axis = AXES @ cv2.Rodrigues(odometry.rotation)[0].ravel()
        angle = float(np.linalg.norm(axis))
        x, y, z = axis / max(angle, 1e-12) * np.sin(angle / 2)
        pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = map(float, position)
        pose.pose.orientation.x, pose.pose.orientation.y, pose.pose.orientation.z = float(x), float(y), float(z)
        pose.pose.orientation.w = float(np.cos(angle / 2))
        self._path.poses.append(pose)
        self._path.header.stamp = message.header.stamp
        self._publisher.publish(self._path)


def main() -> None:
    """Run until Ctrl-C."""
    rclpy.init()
    node = VisualOdometry()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
