"""Limits the memory and the time that rosbags' readers take, whatever sizes a bag claims."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from pathlib import PosixPath
from typing import Any
from urllib.parse import quote

import apsw
from rosbags import rosbag1, rosbag2
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import storage_mcap

from superpoint_ros.bags.compression import MAX_RECORD, ZSTD, decompress
from superpoint_ros.bags.sqlite import limit_database

MAX_METADATA = 1 << 22
"""Maximum size of metadata.yaml in bytes."""

MAX_OVERLAP = 4 * MAX_RECORD
"""Maximum size in bytes of the chunks with messages of the same time, which are in memory together."""


class CompressedFileError(Exception):
    """A file that is compressed as a whole; rosbags would decompress it to a temporary folder, whatever its size."""


class BagPath(PosixPath):
    """A path that opens only regular files, and reads at most MAX_RECORD bytes at once."""

    def open(self, mode: str = 'r', *args: Any, **options: Any) -> Any:  # type: ignore[override]
        if not self.is_file():
            raise ValueError(f'{self.name} is not a regular file')
        if mode != 'rb':
            if self.stat().st_size > MAX_METADATA:
                raise ValueError(f'{self.name} has more than {MAX_METADATA} bytes')
            return super().open(mode, *args, **options)
        file = _LimitedFile(io.FileIO(self))
        if file.peek(len(ZSTD)).startswith(ZSTD):
            file.close()
            raise CompressedFileError(f'{self.name} is compressed')
        return file

    def __format__(self, _: str) -> str:
        """The path for a URI: rosbags formats it into that of a database."""
        return quote(os.fsencode(self))


class _LimitedFile(io.BufferedReader):
    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(MAX_RECORD + 1 if size is None or size < 0 else min(size, MAX_RECORD + 1))
        if len(data) > MAX_RECORD:
            raise ValueError(f'a record has more than {MAX_RECORD} bytes')
        return data

    def readline(self, size: int | None = -1, /) -> bytes:  # noqa: ARG002
        return super().readline(MAX_RECORD)


class _Opening(threading.local):
    size: int | None = None


_opening = _Opening()


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Limit the readers that this thread opens within the block, for a bag of `size` bytes."""
    # rosbags has no options for this.
    storage_mcap.DECOMPRESSORS.update({name: partial(decompress_strictly, name) for name in ('zstd', 'lz4')})
    rosbag1.reader.decompressors.update({name: partial(decompress_strictly, name) for name in ('bz2', 'lz4')})
    if _limit_connection not in apsw.connection_hooks:
        apsw.connection_hooks.append(_limit_connection)
    _opening.size = size
    try:
        yield
    finally:
        _opening.size = None


def limit_messages(reader: AnyReader) -> None:
    """Make an open reader return compressed messages as they are.

    Raises:
        ValueError: chunks with messages of the same time take more than MAX_OVERLAP bytes in memory.
    """
    for bag in reader.readers:
        if not isinstance(bag, rosbag2.Reader):
            continue
        bag.storage.metadata = bag.storage.metadata._replace(compression_mode=None)
        for file in getattr(bag.storage, 'storages', [bag.storage]):
            chunks = file.chunks if isinstance(file, storage_mcap.McapReader) else []
            starts = [(chunk.message_start_time, chunk.uncompressed_size) for chunk in chunks]
            ends = [(chunk.message_end_time + 1, -chunk.uncompressed_size) for chunk in chunks]
            most = max(accumulate(change for _, change in sorted(starts + ends)), default=0)
            if most > MAX_OVERLAP:
                raise ValueError(f'chunks with messages of the same time take {most} bytes, more than {MAX_OVERLAP}')


def decompress_strictly(compression: str, data: bytes, size: int = MAX_RECORD) -> bytes:
    """Decompress a chunk or a message.

    Raises:
        ValueError: it is broken, or larger than `size` bytes.
    """
    content, problem = decompress(compression, data, size, len(data) or 1)
    if problem:
        raise ValueError(f'a chunk or message {problem}')
    return content


def _limit_connection(connection: apsw.Connection) -> None:
    if _opening.size is not None:
        limit_database(connection, _opening.size)
