"""A ROS graph to watch: a camera, the detector and the matcher, each in its own process."""
