"""Layouts of the point clouds of features, matches and tracks, for the nodes and the bag tool.

Our sensor_msgs/PointCloud2 messages are arrays of records: height 1, width N, point_step bytes for each record. A NumPy
structured dtype describes the layout, `tobytes` makes the data, and `np.frombuffer` reads it without a copy.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from superpoint_ros.features import Features, Matches
from superpoint_ros.tracking import Tracks

MATCH = np.dtype(
    [(name, '<f4') for name in ('x0', 'y0', 'x1', 'y1', 'similarity')] + [('index0', '<u4'), ('index1', '<u4')]
)
"""A match: the two keypoints in pixels, cosine similarity, and the rows in the two feature clouds."""

TRACK = np.dtype([('id', '<u4'), ('age', '<u4'), ('x', '<f4'), ('y', '<f4'), ('score', '<f4')])
"""A track: its identity, the number of frames in which it was found, and its keypoint in this frame."""

INT8_SCALE = 127
"""INT8 descriptors are round(127·d)."""

DATATYPES = {'i1': 1, 'u1': 2, 'i2': 3, 'u2': 4, 'i4': 5, 'u4': 6, 'f4': 7, 'f8': 8}
"""Numbers of the data types in sensor_msgs/PointField."""


class Field(NamedTuple):
    """The contents of a sensor_msgs/PointField."""

    name: str
    offset: int
    datatype: int
    count: int  # type: ignore[assignment]  # the message's own name, which hides tuple.count


def feature_dtype(descriptor_size: int, descriptor_type: str = 'int8') -> np.dtype[Any]:
    """Layout of a feature: x and y in pixels, score, and the descriptor as int8 or float32 if it has elements."""
    fields: list[Any] = [('x', '<f4'), ('y', '<f4'), ('score', '<f4')]
    if descriptor_size:
        fields.append(('descriptor', {'int8': 'i1', 'float32': '<f4'}[descriptor_type], (descriptor_size,)))
    return np.dtype(fields)


def point_fields(dtype: np.dtype[Any]) -> list[Field]:
    """The fields of a layout."""
    fields = []
    for name in dtype.names or ():
        kind, offset = dtype.fields[name][:2]  # type: ignore[index]
        count = int(np.prod(kind.shape, dtype=int))
        fields.append(Field(name, offset, DATATYPES[kind.base.str[1:]], count))
    return fields


def encode_features(features: Features, descriptor_type: str = 'int8') -> npt.NDArray[np.void]:
    """Features as an array of records, best first."""
    size = features.descriptors.shape[1]
    cloud = np.empty(len(features), feature_dtype(size, descriptor_type))
    cloud['x'], cloud['y'], cloud['score'] = features.keypoints[:, 0], features.keypoints[:, 1], features.scores
    if size:
        descriptors = features.descriptors
        cloud['descriptor'] = np.rint(descriptors * INT8_SCALE) if descriptor_type == 'int8' else descriptors
    return cloud


def message_values(cloud: npt.NDArray[np.void]) -> dict[str, Any]:
    """The values of a PointCloud2 of (N,) records, except header, fields and data."""
    return {
        'height': 1,
        'width': len(cloud),
        'is_bigendian': False,
        'point_step': cloud.dtype.itemsize,
        'row_step': cloud.nbytes,
        'is_dense': True,
    }


def decode_features(message: Any, info: str = '') -> Features:
    """The features in a PointCloud2 from any program, with float32 descriptors; INT8 ones get unit length.

    Args:
        message: from rclpy or rosbags.
        info: JSON of features/info, for checksum and image size; empty if unknown.

    Raises:
        ValueError: the message is not valid; one sentence says why.
    """
    cloud = read_cloud(message)
    names = cloud.dtype.names or ()
    for name in ('x', 'y', 'score'):
        if name not in names or cloud.dtype[name] != np.dtype('<f4'):
            raise ValueError(f'features: expected a FLOAT32 field {name}, got {cloud.dtype}')
    keypoints = np.stack([cloud['x'], cloud['y']], axis=1)
    if 'descriptor' in names:
        if cloud.dtype['descriptor'].base not in (np.int8, np.dtype('<f4')):
            raise ValueError(f'features: expected a field descriptor of INT8 or FLOAT32, got {cloud.dtype}')
        size = int(np.prod(cloud.dtype['descriptor'].shape, dtype=int))  # 1 if the field is no array
        descriptors = cloud['descriptor'].reshape(len(cloud), size).astype(np.float32)
        if cloud.dtype['descriptor'].base == np.int8:
            length = np.sqrt(np.einsum('kd,kd->k', descriptors, descriptors))
            descriptors /= np.maximum(length, 1e-12)[:, None]
    else:
        descriptors = np.empty((len(cloud), 0), np.float32)
    checksum, image_size = read_features_info(info)
    return Features(keypoints, cloud['score'].astype(np.float32), descriptors, image_size, checksum)


def read_cloud(message: Any) -> npt.NDArray[np.void]:
    """The points of a PointCloud2 from rclpy or rosbags as an array of records.

    It is a view of the data, and a copy only of several rows with padding.

    Raises:
        ValueError: it is big-endian, the data is too short, or a field does not fit in a point.
    """
    if message.is_bigendian:
        raise ValueError('the point cloud is big-endian; send it little-endian')
    count, point_step = message.width * message.height, message.point_step
    kinds = {number: np.dtype(f'<{kind}') for kind, number in DATATYPES.items()}
    names, formats, offsets = [], [], []
    for field in message.fields:
        if field.datatype not in kinds:
            raise ValueError(f'point cloud: field {field.name} has the unknown datatype {field.datatype}')
        kind = kinds[field.datatype]
        if field.offset < 0 or field.count < 0 or field.offset + field.count * kind.itemsize > point_step:
            raise ValueError(f'point cloud: field {field.name} does not fit in a point of {point_step} bytes')
        if field.name in names:
            raise ValueError(f'point cloud: there are two fields {field.name}')
        names.append(field.name)
        formats.append(kind if field.count == 1 else (kind, (field.count,)))
        offsets.append(field.offset)
    layout = np.dtype({'names': names, 'formats': formats, 'offsets': offsets, 'itemsize': point_step})
    buffer = memoryview(message.data)
    row = message.width * point_step
    row_step = max(row, message.row_step) if message.height > 1 else row
    if count < 0 or message.height * row_step > buffer.nbytes:
        what = f'{count} points of {point_step} bytes' + (f' in rows of {row_step}' if row_step > row else '')
        raise ValueError(f'point cloud: {what} need more than its {buffer.nbytes} bytes')
    if row_step > row:
        rows = np.frombuffer(buffer, np.uint8, message.height * row_step).reshape(-1, row_step)
        buffer = np.ascontiguousarray(rows[:, :row]).data
    return np.frombuffer(buffer, layout, count=count)


def features_info(
    model: str, checksum: str, descriptor_size: int, descriptor_type: str, image_size: tuple[int, int]
) -> str:
    """JSON text of features/info: what subscribers need to know about features, for example not to mix models.

    The checksum is SHA-256 of the model's weights, `descriptor_type` int8 or float32, `image_size` (width, height).
    """
    return json.dumps(
        {
            'model': model,
            'checksum': checksum,
            'descriptor_size': descriptor_size,
            'descriptor_type': descriptor_type,
            'descriptor_scale': INT8_SCALE if descriptor_type == 'int8' else 1,
            'image_size': list(image_size),
        }
    )


def read_features_info(info: str) -> tuple[str, tuple[int, int]]:
    """Checksum and image size in features/info.

    Returns:
        If the text is not what features_info makes: the whole text in place of the checksum, and (0, 0).
    """
    try:
        facts = json.loads(info)
        width, height = facts['image_size']
        return str(facts['checksum']), (int(np.int64(width)), int(np.int64(height)))  # OverflowError beyond 64 bits
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return info, (0, 0)


def encode_matches(features0: Features, features1: Features, matches: Matches) -> npt.NDArray[np.void]:
    """Matches as an array of records."""
    cloud = np.empty(len(matches), MATCH)
    index0, index1 = matches.indices.T
    cloud['x0'], cloud['y0'] = features0.keypoints[index0].T
    cloud['x1'], cloud['y1'] = features1.keypoints[index1].T
    cloud['similarity'], cloud['index0'], cloud['index1'] = matches.similarities, index0, index1
    return cloud


def encode_tracks(tracks: Tracks) -> npt.NDArray[np.void]:
    """Tracks as an array of records."""
    cloud = np.empty(len(tracks), TRACK)
    cloud['id'], cloud['age'], cloud['score'] = tracks.ids, tracks.ages, tracks.scores
    cloud['x'], cloud['y'] = tracks.keypoints.T
    return cloud
