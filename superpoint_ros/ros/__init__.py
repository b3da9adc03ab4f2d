"""The ROS 2 side: messages to arrays, the core, arrays to messages.

Only `images` works without ROS, on anything that has the attributes of the messages.
"""
