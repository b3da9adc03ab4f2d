"""RTAB-Map's Python matcher: set PyMatcher/Path to this file."""

from superpoint_ros.rtabmap import PairMatcher

matcher = PairMatcher()

init, match = matcher.init, matcher.match
