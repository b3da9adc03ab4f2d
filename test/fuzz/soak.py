"""Runs the detector and the matcher for long and records what they use: python -m test.fuzz.soak camera --minutes 60.

`camera` publishes images at 30 Hz. `bag` plays a recorded bag at 10 Hz in a loop, with use_sim_time and a clock that
jumps back at its end and, now and then, anywhere else.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from superpoint_ros.ros.messages import image_message
from superpoint_ros.stream_tracker import nanoseconds
from test.bags import conftest as bags
from test.fuzz.live import client
from test.fuzz.processes import NodeProcess

SIZE, KEYPOINTS = (320, 240), 300
REPORTED = 'received', 'dropped', 'bad', 'out of order'
PERIOD = 30.0
"""Seconds between two records."""
RATES = {'camera': 30, 'bag': 10}
TOPICS = ('features', 'matches', 'tracks')
MOST_GROWTH = 0.1
"""Largest accepted growth of memory from the median of the first quarter to that of the last."""


def camera(node: Node) -> Iterator[Image]:
    """Images of a camera that moves over a texture."""
    texture = np.kron(np.random.default_rng(0).integers(0, 256, (60, 1000), np.uint8), np.ones((4, 4), np.uint8))
    for number in count():
        left = abs(number % 7000 - 3500)
        stamp = node.get_clock().now().to_msg()
        yield image_message(texture[:, left : left + SIZE[0]], Header(stamp=stamp, frame_id='camera'))


def bag(node: Node, folder: Path) -> Iterator[Image]:
    """Images of a bag that is played in a loop, each after the clock."""

    def change(number: int, message: object, types: object) -> object:
        return bags.image_message(types, bags.picture(number, *SIZE), bags.START + number * bags.PERIOD)

    rng, clock = random.Random(0), node.create_publisher(Clock, '/clock', 10)
    with AnyReader([bags.Recorder(folder).ros2('bag', 100, change=change, imu=False)]) as reader:
        images = [deserialize_message(bytes(data), Image) for _, _, data in reader.messages()]
    at = 0
    while True:
        clock.publish(Clock(clock=images[at].header.stamp))
        yield images[at]
        at = rng.randrange(len(images)) if rng.random() < 0.01 else (at + 1) % len(images)


def play(node: Node, images: Iterator[Image], rate: float) -> tuple[dict[str, int], list[float], dict[str, int]]:
    """Publish images at a rate in Hz while the node spins.

    Returns the numbers of messages published and received, the milliseconds from images to their tracks, and what the
    nodes report, which all grow.
    """
    counts = dict.fromkeys(('images', *TOPICS), 0)
    latencies: list[float] = []
    reported: dict[str, int] = {}
    publisher = node.create_publisher(Image, 'image', 5)
    sent: dict[int, float] = {}

    def publish() -> None:
        if counts['images'] or (publisher.get_subscription_count() and node.count_publishers('tracks')):
            message = next(images)
            counts['images'] += 1
            sent[nanoseconds(message.header.stamp)] = time.monotonic()
            publisher.publish(message)

    def receive(topic: str, message: PointCloud2) -> None:
        counts[topic] += 1
        if topic == 'tracks' and (began := sent.pop(nanoseconds(message.header.stamp), None)) is not None:
            latencies.append(1000 * (time.monotonic() - began))

    def receive_diagnostics(message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            for name in set(REPORTED) & set(values):
                reported[f'{status.name} {name}'.removeprefix('superpoint_')] = int(values[name])

    for topic in TOPICS:
        node.create_subscription(PointCloud2, topic, partial(receive, topic), 10)
    node.create_subscription(DiagnosticArray, '/diagnostics', receive_diagnostics, 10)
    node.create_timer(1 / rate, publish)
    return counts, latencies, reported


def run(source: str, minutes: float, output: Path) -> bool:
    """Run and write records to a CSV file; returns whether both nodes survived without growing."""
    output.mkdir(parents=True, exist_ok=True)
    options = {'use_sim_time': source == 'bag'}
    nodes = [
        NodeProcess('detector', output / f'{source}.detector.log', max_keypoints=KEYPOINTS, threads=1, **options),
        NodeProcess('matcher', output / f'{source}.matcher.log', **options),
    ]
    records: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        (output / f'{source}.csv').open('w', newline='') as file,
        client() as (player, spin_until),
    ):
        images = camera(player) if source == 'camera' else bag(player, Path(folder))
        counts, latencies, reported = play(player, images, RATES[source])
        began = time.monotonic()
        while time.monotonic() < began + 60 * minutes:
            if spin_until(lambda: any(node.popen.poll() is not None for node in nodes), PERIOD):
                break
            p50, p99 = np.percentile(latencies or [np.nan], (50, 99))
            record: dict[str, float] = {'s': round(time.monotonic() - began)}
            record |= counts | dict(sorted(reported.items()))
            record |= {'p50 [ms]': round(p50, 1), 'p99 [ms]': round(p99, 1)}
            for node in nodes:
                record |= {f'{node.name} {name}': value for name, value in node.usage().items()}
            latencies.clear()
            records.append(record)
            writer = csv.DictWriter(file, list(records[0]), extrasaction='ignore')
            if len(records) == 1:
                writer.writeheader()
            writer.writerow(record)
            file.flush()
    codes = [node.stop() for node in nodes]
    for name in records[0]:
        print(f'{name:24} {records[0][name]:>10} {records[len(records) // 2][name]:>10} {records[-1][name]:>10}')
    print('exit codes', codes, 'lines of log', [len(node.log.read_text().splitlines()) for node in nodes])
    return codes == [0, 0] and not any(_grows([r[f'{node.name} MB'] for r in records]) for node in nodes)


def _grows(values: list[float]) -> bool:
    quarter = max(len(values) // 4, 1)
    return float(np.median(values[-quarter:])) > (1 + MOST_GROWTH) * float(np.median(values[:quarter]))


def main() -> int:
    """Run from the command line; returns 1 if a node ended or grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', nargs='?', choices=RATES, default='camera')
    parser.add_argument('--minutes', type=float, default=60)
    parser.add_argument('--output', type=Path, default=Path('soak'), help='folder of the records and logs')
    arguments = parser.parse_args()
    return not run(arguments.source, arguments.minutes, arguments.output)


if __name__ == '__main__':
    raise SystemExit(main())
