"""`superpoint map`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from superpoint_ros.decode import DecodeConfig
from superpoint_ros.extractor import Extractor, ExtractorConfig
from superpoint_ros.learned_matching import NEAREST, check_model, make_matcher
from superpoint_ros.mapping.cameras import MAX_ERROR, CameraConfig, camera_of
from superpoint_ros.mapping.pairs import chooser
from superpoint_ros.matching import MatchConfig
from superpoint_ros.runtimes import RuntimeConfig


def map(  # noqa: A001
    source: Path,
    *,
    output: Path,
    pairs: str = '',
    overlap: int = 10,
    topics: Sequence[str] = (),
    every: int = 1,
    max_error: float = MAX_ERROR,
    hloc: bool = False,
    reconstruct: bool = False,
    model: str = 'superpoint',
    matcher: str = NEAREST,
    camera: CameraConfig = CameraConfig(),
    extractor: ExtractorConfig = ExtractorConfig(resize=1600),
    runtime: RuntimeConfig = RuntimeConfig(),
    decode: DecodeConfig = DecodeConfig(max_keypoints=3072),
    matching: MatchConfig = MatchConfig(max_ratio=0.9),
) -> bool:
    """Write a COLMAP database of the images in a folder or bag, and reconstruct cameras and points from it.

    A run that was interrupted continues when it is started again. Images smaller than --resize are enlarged to it, at
    most to twice their size.

    Args:
        source: folder with images, or a ROS 1 or ROS 2 bag.
        output: folder for database.db, features/NAME.npz and, from a bag, images/TOPIC/STAMP.png.
        pairs: which images to match: exhaustive, sequential, or a text file with the names of two images on each line;
            if not given, sequential for a bag and exhaustive for a folder.
        overlap: with sequential pairs, number of following images with which each image is matched.
        topics: image topics of a bag; all but depth images if not given.
        every: take every nth image of a topic.
        max_error: largest distance of a keypoint from the geometry, in pixels of the image that the network sees.
        hloc: also write features.h5 and matches.h5 in hloc's layout.
        reconstruct: run COLMAP's incremental mapper, and write its model to sparse/0.
        model: name of a shipped model, or path of a .safetensors or .onnx file.
        matcher: nearest neighbors (nearest), the learned matcher of the default model (learned), or the name
            (lightglue_superpoint) or path of another learned matcher.

    Raises:
        FileNotFoundError: the source does not exist, or has no images.
        ValueError: an option or the list of pairs is bad, or the output has a map with other settings.
    """
    from superpoint_ros.mapping import colmap
    from superpoint_ros.mapping.build import build_database, check_settings
    from superpoint_ros.mapping.sources import check_source, find_images, is_bag

    if every < 1 or overlap < 1 or not max_error > 0:
        raise ValueError('expected every and overlap of at least 1, and a max_error greater than 0')
    extract = Extractor(model, **vars(extractor), **vars(runtime), **vars(decode))
    configs = {**vars(camera), **vars(extractor), **vars(decode), **vars(matching)}
    match = make_matcher(matcher, matching, runtime)
    check_model(match, extract.runtime)
    facts = {'source': str(source.absolute()), 'topics': list(topics), 'every': every, 'matcher': matcher}
    settings = {'model': extract.runtime.checksum, 'max_error': max_error, **facts, **configs}
    colmap.check_camera(camera)
    check_source(source, topics)
    check_settings(output / 'map.json', settings)
    found = find_images(source, output / 'images', camera, topics, every)
    choose_pairs = chooser(pairs or ('sequential' if is_bag(source) else 'exhaustive'), found.names, overlap)
    built = build_database(found.folder, found.names, output, extract, match, choose_pairs, found.cameras, max_error)
    failed = found.failed + built.failed
    print(f'{built.path}: {colmap.summary(built.path)}')
    if hloc:
        from superpoint_ros.mapping.hloc import write_features, write_matches

        write_features(output / 'features.h5', built.features, built.names)
        matches = colmap.read_matches(built.path, built.pairs)
        write_matches(output / 'matches.h5', built.features, matches)
        print(f'{output / "features.h5"} and matches.h5: {len(built.names)} images, {len(matches)} pairs')
    if reconstruct:
        calibrated = all(camera_of(name, found.cameras).camera_params for name in built.names)
        parts = colmap.reconstruct(built.path, found.folder, output / 'sparse', built.max_error, not calibrated)
        for number, part in enumerate(parts):
            print(f'{output / "sparse" / str(number)}: {colmap.describe(part, len(built.names))}')
        if not parts:
            failed.append(f'{built.path}: no two images have enough matches to start a reconstruction')
    if failed:
        print(f'{len(failed)} failed:', *failed, sep='\n  ', file=sys.stderr)
    return not failed
