"""`superpoint bag`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from superpoint_ros import models, runtimes
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.extractor import ExtractorConfig
from superpoint_ros.learned_matching import NEAREST, check_model, make_matcher
from superpoint_ros.matching import MatchConfig
from superpoint_ros.runtimes import RuntimeConfig
from superpoint_ros.tracking import TrackerConfig


def bag(
    bags: Sequence[Path],
    *,
    output: Path,
    to: Literal['mcap', 'sqlite3', 'npz', 'hdf5'] = 'mcap',
    topics: Sequence[str] = (),
    match: bool = False,
    track: bool = False,
    copy: bool = False,
    resume: bool = False,
    cluster: str | None = None,
    workers: int = 0,
    model: str = models.DEFAULT,
    matcher: str = NEAREST,
    descriptor_type: Literal['int8', 'float32'] = 'int8',
    batch: int = 0,
    extractor: ExtractorConfig = ExtractorConfig(),
    runtime: RuntimeConfig = RuntimeConfig(),
    decode: DecodeConfig = DecodeConfig(),
    matching: MatchConfig = MatchConfig(),
    tracking: TrackerConfig = TrackerConfig(),
) -> bool:
    """Extract the features of the images in bags, with the topics, stamps and bytes of a live detector.

    drive.bag gives the bag OUTPUT/drive; until it is complete there is only OUTPUT/drive.partial. A bag that fails does
    not stop the others. The problems of a bag are listed when it is done.

    Args:
        bags: ROS 1 bags, ROS 2 bag folders, or single .mcap and .db3 files.
        output: folder for the results.
        to: output format: a bag (mcap, sqlite3), a file for each image (npz), or a file for each bag as in hloc (hdf5).
        topics: image topics to process; all but depth images if not given.
        match: write matches of consecutive images.
        track: write tracks.
        copy: copy the original messages.
        resume: continue an earlier run; bags whose output exists are skipped.
        cluster: address of a Ray cluster; local, or no value, for workers on this machine only.
        workers: Ray workers, each with its own model; 0 for one on each GPU or, without any, on each machine.
        model: name of a shipped model, or path of a .safetensors or .onnx file.
        matcher: nearest neighbors (nearest), the learned matcher of the default model (learned), or the name
            (lightglue_superpoint) or path of another learned matcher. Tracks always use nearest neighbors.
        descriptor_type: type of the descriptors in a bag; npz and hdf5 always have float32.
        batch: images for each call of the network. Several are faster on a GPU, and may change the last bits of the
            results; 0 for as many as change nothing.
    """
    from superpoint_ros.bags.job import Output, Settings
    from superpoint_ros.bags.run import process_bags

    options = {name: value for config in (extractor, runtime, decode) for name, value in asdict(config).items()}
    if to in ('npz', 'hdf5'):
        descriptor_type = 'float32'
    find_matches = make_matcher(matcher, matching, runtime)
    settings = Settings(model, options, descriptor_type, batch, tuple(topics))
    written = Output(to, copy, match, track, matching, tracking, None if matcher == NEAREST else find_matches)
    # With a cluster, this machine may lack what runs the model, but not what runs a learned matcher.
    if (match or track) and (cluster is None or matcher != NEAREST):
        check_model(find_matches, runtimes.load(models.resolve(model), runtime))
    return process_bags(bags, output, written, settings, resume, cluster, workers)
