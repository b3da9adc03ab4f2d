"""RTAB-Map's Python detector: set PyDetector/Path to this file, or to a copy with another model and other options."""

from superpoint_ros.rtabmap import Detector

detector = Detector('superpoint', max_keypoints=1024)

init, detect = detector.init, detector.detect
