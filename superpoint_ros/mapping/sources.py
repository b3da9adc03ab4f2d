"""The images to map: those of a folder, or those of a bag, which become files because COLMAP reads files."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rosbags.highlevel import AnyReader

from superpoint_ros import drawing, image_files, images
from superpoint_ros.bags import recover
from superpoint_ros.bags.read import (
    DamagedBagError,
    deserialize,
    image_connections,
    image_name,
    image_topics,
    messages,
    namespace,
    open_bag,
    seconds,
    topic_path,
)
from superpoint_ros.mapping.cameras import CameraConfig, from_camera_info

CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'


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
    """Whether a path is a bag rather than a folder of images; the folder of a killed recorder has no metadata.yaml."""
    if path.is_dir():
        suffixes = {file.suffix.lower() for file in path.iterdir()}
        has_images = bool(suffixes.intersection(image_files.SUFFIXES))
        return (path / 'metadata.yaml').is_file() or (not has_images and bool(suffixes & {'.mcap', '.db3'}))
    return path.is_file() or path.suffix in ('.bag', '.mcap', '.db3')


def check_source(path: Path, topics: Sequence[str] = ()) -> None:
    """Raise the errors of find_images, without writing anything; a damaged bag is left to it."""
    if not is_bag(path):
        image_files.files_in(path, recursive=True)
        return
    with suppress(DamagedBagError), open_bag(path) as reader:
        image_topics(reader, topics)


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
    """Write the images of a bag as gray PNG files with the names of `image_name`; files that exist are kept.

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
        taken: Counter[str] = Counter()
        connections = image_connections(reader, image_topics(reader, topics))
        for connection, log_time, data in messages(reader, connections):
            seen[connection.topic] += 1
            if (seen[connection.topic] - 1) % every:
                continue
            try:
                message = deserialize(reader, data, connection.msgtype)
                path = folder / f'{image_name(connection.topic, message.header, log_time, taken)}.png'
                if not path.exists():
                    drawing.write(path, image_files.eight_bits(images.gray(message)))
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
    """The cameras of image topics, by the folder of `write_images`, from the first good camera_info beside each topic.

    Topics named image_rect… have rectified images.
    """
    found = {}
    with suppress(DamagedBagError), open_bag(bag) as reader:  # write_images reports the damage
        for topic in image_topics(reader, topics):
            beside = f'{namespace(topic)}/camera_info'
            infos = [c for c in reader.connections if (c.topic, c.msgtype) == (beside, CAMERA_INFO)]
            rectified = topic.removesuffix('/compressed').rpartition('/')[2].startswith('image_rect')
            for _, _, data in messages(reader, infos):
                try:
                    camera = from_camera_info(deserialize(reader, data, CAMERA_INFO), rectified)
                except Exception:  # noqa: BLE001 - a broken message leads to any error
                    continue
                if camera:
                    found[topic_path(topic)] = camera
                break
    return found
