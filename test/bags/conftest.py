"""Bags as recorders write them."""

import numpy as np
import pytest
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from superpoint_ros.commands.bag import bag
from superpoint_ros.runtimes import RuntimeConfig

START = 1_700_000_000 * 10**9
PERIOD = 10**8
DELAY = 5_000_000  # from an image's stamp to its log time


def single_files(frames):
    """Functions that record a bag of one file with a Recorder, by the kind of the file."""
    return {
        'ros1': lambda record: record.ros1('bag', frames, chunk=20_000),
        'ros1-lz4': lambda record: record.ros1('bag', frames, 'LZ4', chunk=20_000),
        'ros1-bz2': lambda record: record.ros1('bag', frames, 'BZ2', chunk=20_000),
        'mcap': lambda record: record.mcap('bag', frames, 'NONE'),
        'mcap-zstd': lambda record: record.mcap('bag', frames, 'ZSTD'),
        'mcap-lz4': lambda record: record.mcap('bag', frames, 'LZ4'),
        'sqlite3': lambda record: record.ros2('bag', frames, 'sqlite3') / 'bag.db3',
    }


@pytest.fixture
def run(tiny_model, tmp_path):
    """`superpoint bag` with the tiny network, into tmp_path/out."""

    def process(*bags, **options):
        defaults = {'model': str(tiny_model), 'runtime': RuntimeConfig(backend='openvino', threads=1)}
        return bag(bags, output=tmp_path / 'out', **defaults | options)

    return process


@pytest.fixture
def record(tmp_path):
    return Recorder(tmp_path)


class Recorder:
    """Writes bags with /camera/image at 10 Hz and, between the images, /imu.

    `change(number, message, types)` may return another image message, or bytes that are not one.
    """

    def __init__(self, folder):
        self.folder = folder

    def ros1(self, name, frames, compression=None, chunk=None, **options):
        path = self.folder / f'{name}.bag'
        writer = Writer1(path)
        if compression:
            writer.set_compression(Writer1.CompressionFormat[compression])
        if chunk:
            writer.chunk_threshold = chunk
        types = get_typestore(Stores.ROS1_NOETIC)
        with writer:
            self._fill(writer, types, types.serialize_ros1, frames, **options)
        return path

    def ros2(self, name, frames, storage='mcap', compression='NONE', **options):
        path = self.folder / name
        writer = Writer(path, version=8, storage_plugin=StoragePlugin[storage.upper()])
        writer.set_compression(CompressionMode[compression], CompressionFormat.ZSTD)
        types = get_typestore(Stores.ROS2_JAZZY)
        with writer:
            self._fill(writer, types, types.serialize_cdr, frames, **options)
        return path

    def mcap(self, name, frames, compression='ZSTD', chunk=20_000, **options):
        """An .mcap file as the C++ recorder writes it: small chunks with checksums."""
        source, path = self.ros2(f'{name}.source', frames, **options), self.folder / f'{name}.mcap'
        with AnyReader([source]) as reader, path.open('wb') as file:
            writer = McapWriter(file, chunk_size=chunk, compression=CompressionType[compression])
            writer.start(profile='ros2')
            channels = {}
            for connection in reader.connections:
                schema = writer.register_schema(connection.msgtype, 'ros2msg', connection.msgdef.data.encode())
                channels[connection.topic] = writer.register_channel(connection.topic, 'cdr', schema)
            for connection, stamp, data in reader.messages():
                writer.add_message(channels[connection.topic], stamp, data, stamp)
            writer.finish()
        return path

    def _fill(self, writer, types, serialize, frames, topics=('/camera/image',), change=None, imu=True):
        def connect(topic, kind):
            return writer.add_connection(topic, kind, typestore=types)

        cameras = [connect(topic, 'sensor_msgs/msg/Image') for topic in topics]
        inertial = connect('/imu', 'sensor_msgs/msg/Imu') if imu else None
        for number in range(frames):
            stamp = START + number * PERIOD
            if inertial:
                writer.write(inertial, stamp, serialize(imu_message(types, number, stamp), 'sensor_msgs/msg/Imu'))
            for camera in cameras:
                message = image_message(types, picture(number), stamp)
                if change:
                    message = change(number, message, types)
                data = message if isinstance(message, bytes) else serialize(message, 'sensor_msgs/msg/Image')
                writer.write(camera, stamp + DELAY, data)


def picture(number, width=96, height=64):
    """The picture of a camera that moves a pixel to the right with each number."""
    texture = np.random.default_rng(0).integers(0, 256, (height, width + 200), np.uint8)
    return np.ascontiguousarray(texture[:, number % 200 : number % 200 + width])


def header(types, stamp, frame='camera'):
    time = types.types['builtin_interfaces/msg/Time'](sec=stamp // 10**9, nanosec=stamp % 10**9)
    kind = types.types['std_msgs/msg/Header']
    sequence = {'seq': 0} if 'seq' in kind.__dataclass_fields__ else {}
    return kind(**sequence, stamp=time, frame_id=frame)


def image_message(types, pixels, stamp, encoding='mono8'):
    height, width = pixels.shape[:2]
    return types.types['sensor_msgs/msg/Image'](
        header(types, stamp), height, width, encoding, 0, pixels.nbytes // height, pixels.reshape(-1).view(np.uint8)
    )


def imu_message(types, number, stamp):
    vector = types.types['geometry_msgs/msg/Vector3'](0.0, 0.0, float(number))
    turn = types.types['geometry_msgs/msg/Quaternion'](0.0, 0.0, 0.0, 1.0)
    nine = np.zeros(9)
    return types.types['sensor_msgs/msg/Imu'](header(types, stamp), turn, nine, vector, nine, vector, nine)


def contents(path):
    """All messages of a bag: (topic, log time, serialized)."""
    with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        return [(c.topic, stamp, bytes(data)) for c, stamp, data in reader.messages()]


def decoded(path, topic):
    """The messages on a topic: (log time, message)."""
    with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        connections = [c for c in reader.connections if c.topic == topic]
        found = reader.messages(connections) if connections else ()
        return [(stamp, reader.deserialize(data, c.msgtype)) for c, stamp, data in found]
