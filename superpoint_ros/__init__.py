"""SuperPoint local features for robots: extract, match and track keypoints, live in ROS 2 or offline."""
