"""Features of the images in ROS 1 and ROS 2 bags, without a ROS installation."""
