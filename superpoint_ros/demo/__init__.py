"""A real ROS graph to look at: a camera, the detector and the matcher in processes of their own, and what they give."""
