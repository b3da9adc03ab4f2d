"""ROS 2 nodes: they turn messages into arrays, call the core, and turn arrays into messages."""
