"""Extracts the segments of many bags on the workers of a Ray cluster.

All machines must see the bags and the output under the same paths. Workers write results as a single machine does. If
a worker is believed dead and another one repeats its segment, the first results count.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from superpoint_ros.bags.job import Job, Settings
from superpoint_ros.bags.pipeline import extract
from superpoint_ros.bags.segments import Summary, read_summary
from superpoint_ros.extractor import Extractor

if TYPE_CHECKING:
    from superpoint_ros.bags.run import Work

try:
    import ray
except ImportError as error:
    raise ImportError(f'--cluster needs ray: pip install superpoint_ros[cluster] ({error})') from error

RETRIES = 3
"""Attempts after the first one at a segment whose worker died. If all fail, the segment is what kills workers."""


class SegmentWorker:
    """Extracts segments, one at a time, with its own model."""

    def __init__(self, settings: Settings) -> None:
        self._extractor = Extractor(settings.model, **settings.options)

    def extract(self, job: Job, index: int) -> Summary:
        """Extract a segment and write its results."""
        extract(job, [index], self._extractor)
        return read_summary(job, index)


def extract_on_cluster(
    settings: Settings, address: str, workers: int, works: Sequence[Work], advance: Callable[[int], None]
) -> None:
    """Extract all missing segments; an Extraction of superpoint_ros.bags.run.

    The address is that of ray.init: host:port, 'auto', or 'local' for this machine only.

    Raises:
        ConnectionError: there is no such cluster.
    """
    todo = deque((work, index) for work in works for index in work.job.missing())
    if not todo:
        return
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    except ConnectionError as error:
        raise ConnectionError(f'no Ray cluster at {address}: {error}') from error
    try:
        idle = _start(settings, workers, len(todo))
        running: dict[Any, tuple[Any, Work, int]] = {}
        while todo or running:
            while todo and idle:
                work, index = todo.popleft()
                if not work.finished.failed:
                    worker = idle.pop()
                    running[worker.extract.remote(work.job, index)] = worker, work, index
            for reference in ray.wait(list(running))[0] if running else []:
                worker, work, index = running.pop(reference)
                idle.append(worker)
                try:
                    summary = ray.get(reference)
                    work.finished.add(index)
                    advance(summary.frames + summary.bad)
                except Exception as error:  # noqa: BLE001 - reported; does not concern the other bags
                    work.finished.fail(getattr(error, 'cause', None) or error)
    finally:
        ray.shutdown()


def _start(settings: Settings, workers: int, most: int) -> list[Any]:
    """Start workers, each with a GPU if there are any, else with its share of the cores of a machine."""
    machines = [node['Resources'] for node in ray.nodes() if node['Alive']]
    gpus = int(sum(machine.get('GPU', 0) for machine in machines))
    workers = min(workers or gpus or len(machines), most)
    cores = min(machine.get('CPU', 1) for machine in machines)
    each = -(-workers // len(machines))
    share: dict[str, Any] = {'num_gpus': 1} if gpus else {'num_cpus': max(1, int(cores // each))}
    worker = ray.remote(max_restarts=-1, max_task_retries=RETRIES, scheduling_strategy='SPREAD', **share)(SegmentWorker)
    return [worker.remote(settings) for _ in range(workers)]
