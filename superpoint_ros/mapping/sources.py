"""The images to map: those of a folder, or those of a bag, which become files because COLMAP reads files."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import cv2
from rosbags.highlevel import AnyReader

from superpoint_ros import image_files, images
from superpoint_ros.bags import recover
from superpoint_ros.bags.read import (
    COMPRESSED_IMAGE,
    DamagedBagError,
    deserialize_image,
    image_connections,
    image_topics,
    messages,
    namespace,
    open_bag,
    seconds,
    topic_path,
)
from superpoint_ros.files import written_whole
from superpoint_ros.mapping.cameras import CameraConfig, from_camera_info


class Source(NamedTuple):
    """The images to map."""

    folder: Path
    names: list[str]
    """Of the images, their paths below the folder."""
    cameras: dict[str, CameraConfig]
    """By folder below `folder`; '' for all others."""
    failed: list[str]
    """A sentence for each image that is broken."""


def is_bag(path: Path) -> bool:
    """Whether a path is a bag rather than a folder of images."""
    return path.suffix in ('.bag', '.mcap', '.db3') or (path / 'metadata.yaml').is_file()


def find_images(path: Path, folder: Path, camera: CameraConfig, topics: Sequence[str] = (), every: int = 1) -> Source:
    """The images of a folder and all folders in it, or of a bag, which are written as write_images does.

    A camera without parameters is replaced by camera_info in a bag.

    Raises:
        FileNotFoundError: there is no such folder or bag, or it has no images.
        ValueError: the bag does not have these topics.
    """
    cameras, failed = {'': camera}, []
    if is_bag(path):
        failed = write_images(path, folder, topics, every)
        cameras |= {} if camera.camera_params else cameras_of(path, topics)
        path = folder
    names = [file.relative_to(path).as_posix() for file in image_files.files_in(path, recursive=True)]
    return Source(path, names, cameras, failed)


def write_images(bag: Path, folder: Path, topics: Sequence[str] = (), every: int = 1) -> list[str]:
    """Write the images of a bag as gray PNG files, <topic>/<stamp in ns>.png; files that exist are kept.

    Without topics, all images are written but depth images. Of each topic, only the first of `every` images is.

    Returns:
        A sentence for each image that is broken, and for a bag that is damaged; all others are written.

    Raises:
        FileNotFoundError: there is no such bag.
        ValueError: the bag does not have these topics, or no images.
    """
    failed: list[str] = []

    def write(reader: AnyReader) -> None:
        failed.clear()
        seen: Counter[str] = Counter()
        connections = image_connections(reader, image_topics(reader, topics))
        for connection, log_time, data in messages(reader, connections):
            seen[connection.topic] += 1
            if (seen[connection.topic] - 1) % every:
                continue
            try:
                message = deserialize_image(reader, data, connection.msgtype)
                stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec or log_time
                path = folder / topic_path(connection.topic) / f'{stamp}.png'
                if not path.exists():
                    convert = images.decompress if connection.msgtype == COMPRESSED_IMAGE else images.to_gray
                    pixels = image_files.eight_bits(convert(message))
                    with written_whole(path) as partial:
                        cv2.imwrite(str(partial), pixels)
            except OSError:
                raise
            except Exception as error:  # noqa: BLE001 - deserializing raises whatever a broken message leads to
                failed.append(f'{connection.topic} at {seconds(log_time)}: {error}')

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        recovered = Path(scratch) / 'recovered'
        recover.read(bag, recovered, False, write)
        return recover.damage_of(recovered) + failed


def cameras_of(bag: Path, topics: Sequence[str] = ()) -> dict[str, CameraConfig]:
    """The cameras of image topics, by the folder of `write_images`, from the first camera_info beside each topic."""
    found = {}
    with suppress(DamagedBagError), open_bag(bag) as reader:  # write_images reports the damage
        for topic in image_topics(reader, topics):
            infos = [c for c in reader.connections if c.topic == f'{namespace(topic)}/camera_info']
            for connection, _, data in itertools.islice(messages(reader, infos), 1):
                camera = from_camera_info(reader.deserialize(data, connection.msgtype))
                if camera:
                    found[topic_path(topic)] = camera
    return found
