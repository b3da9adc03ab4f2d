"""Small bag files that claim to be large, and a process with little memory to read them in."""

import json
import struct
import subprocess
import sys
import textwrap

from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import Channel, ChunkIndex, Footer, Header, Schema, Statistics
from rosbags.rosbag2.storage_mcap import zstd

from superpoint_ros.bags import records

MEGABYTE, GIGABYTE = 1 << 20, 1 << 30


def run_limited(program, *arguments, megabytes=700):
    """Run a Python program that may take so much more memory than its libraries; `limit_memory()` begins to count.

    Returns:
        What it prints, read as JSON.
    """
    head = f"""
        import json, resource, sys
        from pathlib import Path

        def limit_memory():
            own = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (own + {megabytes} * 2**20,) * 2)
    """
    program = textwrap.dedent(head) + textwrap.dedent(program)
    words = [sys.executable, '-c', program, *map(str, arguments)]
    result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=100)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def mcap_record(opcode, content, length=None):
    return struct.pack('<BQ', opcode, len(content) if length is None else length) + content


def mcap_chunk(data, size, compression=b'zstd'):
    head = struct.pack('<QQQI', 0, 10, size, 0) + struct.pack('<I', len(compression)) + compression
    return mcap_record(Opcode.CHUNK, head + struct.pack('<Q', len(data)) + data)


def compressed_zeros(megabytes, before=b''):
    """Some bytes and many zeros, compressed by zstd to a few kilobytes."""
    compressor = zstd.ZstdCompressor()
    pieces = [compressor.compress(before)] + [compressor.compress(bytes(MEGABYTE)) for _ in range(megabytes)]
    return b''.join(pieces) + compressor.flush()


def built(*parts):
    """Records of the mcap library as bytes."""
    builder = RecordBuilder()
    for part in parts:
        part.write(builder)
    return builder.end()


def declared_topic():
    """Records that declare the topic with number 1."""
    return built(
        Schema(id=1, name='sensor_msgs/msg/Image', encoding='ros2msg', data=b''),
        Channel(id=1, topic='/camera/image', message_encoding='cdr', metadata={}, schema_id=1),
    )


def mcap_message(number, length=None):
    return mcap_record(Opcode.MESSAGE, struct.pack('<HIQQ', 1, number, number, number) + b'data', length)


def indexed_mcap(*chunks):
    """An MCAP file with an index of its chunks, each of which is given as compressed data and size."""
    data, indices = records.MCAP + built(Header('ros2', '')), []
    for content, size in chunks:
        chunk = mcap_chunk(content, size)
        indices.append(
            ChunkIndex(
                chunk_length=len(chunk),
                chunk_start_offset=len(data),
                compression='zstd',
                compressed_size=len(content),
                message_end_time=10,
                message_index_length=0,
                message_index_offsets={1: len(data)},
                message_start_time=0,
                uncompressed_size=size,
            )
        )
        data += chunk
    summary = len(data)
    statistics = Statistics(0, 1, {1: len(chunks)}, len(chunks), len(chunks), 10, 0, 0, 1)
    return data + declared_topic() + built(*indices, statistics, Footer(summary, 0, 0)) + records.MCAP
