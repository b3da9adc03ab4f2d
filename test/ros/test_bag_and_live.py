"""A bag and a live run of the same images give the same features, tracks and matches."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('rosbags', reason='needs rosbags to read and write bags')

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import Reader, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image, PointCloud2, TimeReference

from superpoint_ros.commands.bag import bag
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.matching import MatchConfig
from superpoint_ros.runtimes import RuntimeConfig

OUTPUTS = {
    '/camera/features': PointCloud2,
    '/camera/tracks': PointCloud2,
    '/camera/matches': PointCloud2,
    '/camera/matches/first': TimeReference,
}
STAMPS = [100.0, 100.1, 100.2, 99.9, 100.2, 100.3, 100.4, 50.0, 50.1, 50.2]
"""Seconds. The fourth and fifth are late; then the clock jumps back, as in a bag that loops."""
MODEL = 'unsuperpoint_lite'
BROKEN = 6
"""Index of an image whose data is cut off."""


def write_images(path):
    """A bag of a camera that moves to the right by 8 pixels with every image."""
    types = get_typestore(Stores.ROS2_JAZZY)
    kind, time_kind = types.types['sensor_msgs/msg/Image'], types.types['builtin_interfaces/msg/Time']
    texture = np.random.default_rng(0).integers(0, 256, (192, 256 + 8 * len(STAMPS)), np.uint8)
    with Writer(path, version=8) as writer:
        connection = writer.add_connection('/camera/image', kind.__msgtype__, typestore=types)
        for number, stamp in enumerate(STAMPS):
            sec, nanosec = divmod(round(stamp * 1e9), 10**9)
            header = types.types['std_msgs/msg/Header'](time_kind(sec, nanosec), f'image {number}')
            pixels = texture[:, 8 * number : 8 * number + 256].reshape(-1)
            message = kind(header, 192, 256, 'mono8', 0, 256, pixels[:100] if number == BROKEN else pixels)
            writer.write(connection, number * 10**8 + 1, types.serialize_cdr(message, kind.__msgtype__))


def bag_messages(path, topic):
    """The serialized messages of a topic."""
    with Reader(path) as reader:
        connections = [connection for connection in reader.connections if connection.topic == topic]
        return [bytes(data) for _, _, data in reader.messages(connections)]


def start(node, domain, **parameters):
    program = f'from superpoint_ros.ros.{node}_node import main; main()'
    arguments = [word for name, value in parameters.items() for word in ('-p', f'{name}:={value}')]
    return subprocess.Popen(
        [sys.executable, '-c', program, '--ros-args', '-p', 'cameras:=[camera]', *arguments],
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain)},
    )


def play(context, images, expected):
    """Publish serialized images one by one; returns what the nodes publish, without repeated headers.

    `expected` is the number of messages to wait for on each topic.
    """
    node = rclpy.create_node('player', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    received = {topic: {} for topic in OUTPUTS}

    def wait(condition, timeout):
        end = time.monotonic() + timeout
        while not condition() and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)
        return condition()

    def send(image, topic, timeout):
        frame = deserialize_message(image, Image).header.frame_id
        publisher.publish(image)
        return wait(lambda: frame in received[topic], timeout)

    for topic, kind in OUTPUTS.items():

        def keep(message, messages=received[topic]):
            messages.setdefault(message.header.frame_id, message)

        node.create_subscription(kind, topic, keep, 20)
    publisher = node.create_publisher(Image, '/camera/image', 20)
    try:
        # The first image is sent until all nodes have found each other: when repeated, it is late and changes nothing.
        assert any(send(images[0], '/camera/tracks', timeout=2) for _ in range(20)), 'no tracks of the first image'
        for number, image in enumerate(images[1:], 1):
            assert send(image, '/camera/features', timeout=1 if number == BROKEN else 20) != (number == BROKEN)
        wait(lambda: {topic: len(messages) for topic, messages in received.items()} == expected, timeout=20)
    finally:
        node.destroy_node()
        executor.shutdown()
    return {topic: list(messages.values()) for topic, messages in received.items()}


def test_a_bag_and_a_live_run_give_the_same_messages(context, tmp_path):
    write_images(tmp_path / 'drive')
    all_good = bag(
        [tmp_path / 'drive'],
        output=tmp_path / 'out',
        model=MODEL,
        match=True,
        track=True,
        runtime=RuntimeConfig(backend='openvino', threads=1),
        decode=DecodeConfig(max_keypoints=300),
        matching=MatchConfig(min_similarity=0.5),
    )
    assert not all_good, 'an image is broken, and two are late'
    offline = {
        topic: [deserialize_message(data, kind) for data in bag_messages(tmp_path / 'out/drive', topic)]
        for topic, kind in OUTPUTS.items()
    }
    counts = {topic: len(messages) for topic, messages in offline.items()}
    assert list(counts.values()) == [9, 7, 5, 5]
    assert min(message.width for message in offline['/camera/matches']) > 200

    domain = context.get_domain_id()
    nodes = [
        start('detector', domain, model=MODEL, backend='openvino', threads=1, max_keypoints=300),
        start('matcher', domain, min_similarity=0.5),
    ]
    try:
        live = play(context, bag_messages(tmp_path / 'drive', '/camera/image'), counts)
    finally:
        for process in nodes:
            process.terminate()
            process.wait(20)
    assert live == offline
