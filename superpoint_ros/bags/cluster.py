"""The segments of many bags, worked on by the workers of a Ray cluster.

Every machine must see the bags and the output under the same paths. A worker writes parts as a single machine does,
each whole from the moment it is there; so a segment that is done twice, because a worker died late, counts once.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from superpoint_ros.bags.job import Job, Settings
from superpoint_ros.bags.parts import Part
from superpoint_ros.bags.pipeline import extract
from superpoint_ros.extractor import Extractor

if TYPE_CHECKING:
    from superpoint_ros.bags.command import Work

try:
    import ray
except ImportError as error:
    raise ImportError(
        f'a cluster needs ray, which does not load ({error}); pip install superpoint_ros[cluster]'
    ) from error

RETRIES = 3
"""How often a segment is tried again after the worker that had it died: more often, and it is what kills them."""


class SegmentWorker:
    """Has one model, and extracts the features of one segment at a time."""

    def __init__(self, settings: Settings) -> None:
        self._extractor = Extractor(settings.model, **settings.options)

    def extract(self, job: Job, segment: int) -> Part:
        """The part is on the disk when this returns."""
        return next(extract(job, [segment], self._extractor))


def run_on_cluster(
    settings: Settings, address: str, workers: int, works: Sequence[Work], advance: Callable[[int], None]
) -> None:
    """Do all segments that are missing, and say of each when it is done.

    Args:
        settings: for the workers' models.
        address: of the cluster, as ray.init takes it: host:port, 'auto', or 'local' for this machine alone.
        workers: how many; 0 for one on each GPU or, without any, on each machine.
        works: the jobs.
        advance: called with a number of frames.

    Raises:
        ConnectionError: there is no such cluster.
    """
    todo = deque((work, segment) for work in works for segment in work.job.missing())
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
                work, segment = todo.popleft()
                if not work.finished.failed:
                    worker = idle.pop()
                    running[worker.extract.remote(work.job, segment)] = worker, work, segment
            for reference in ray.wait(list(running))[0] if running else []:
                worker, work, segment = running.pop(reference)
                idle.append(worker)
                try:
                    part = ray.get(reference)
                except ray.exceptions.RayError as error:
                    work.finished.fail(getattr(error, 'cause', None) or error)
                else:
                    work.finished.add(segment)
                    advance(part.frames + len(part.bad))
    finally:
        ray.shutdown()


def _start(settings: Settings, workers: int, most: int) -> list[Any]:
    """Start workers, each with a GPU if there are any, or else with its share of a machine's cores."""
    machines = [node['Resources'] for node in ray.nodes() if node['Alive']]
    gpus = int(sum(machine.get('GPU', 0) for machine in machines))
    workers = min(workers or gpus or len(machines), most)
    cores = min(machine.get('CPU', 1) for machine in machines)
    share: dict[str, Any] = (
        {'num_gpus': 1} if gpus else {'num_cpus': max(1, int(cores // -(-workers // len(machines))))}
    )
    worker = ray.remote(max_restarts=-1, max_task_retries=RETRIES, scheduling_strategy='SPREAD', **share)(SegmentWorker)
    return [worker.remote(settings) for _ in range(workers)]
