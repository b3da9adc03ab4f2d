"""`superpoint match`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from superpoint_ros import drawing, models
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.extractor import Extractor, ExtractorConfig, from_file
from superpoint_ros.learned_matching import NEAREST, make_matcher
from superpoint_ros.matching import MatchConfig, verify
from superpoint_ros.runtimes import RuntimeConfig


def match(
    image0: Path,
    image1: Path,
    output: Path = Path('matches.png'),
    model: str = models.DEFAULT,
    matcher: str = NEAREST,
    geometry: Literal['homography', 'fundamental'] = 'fundamental',
    extractor: ExtractorConfig = ExtractorConfig(),
    runtime: RuntimeConfig = RuntimeConfig(),
    decode: DecodeConfig = DecodeConfig(),
    matching: MatchConfig = MatchConfig(),
) -> str:
    """Match two image files, and draw the matches: green if they agree with one geometry, else red.

    Args:
        image0: the first image.
        image1: the second image.
        output: picture to write.
        model: name of a shipped model, or path of a .safetensors or .onnx file.
        matcher: nearest neighbors (nearest), the learned matcher of the default model (learned), or the name
            (lightglue_superpoint) or path of another learned matcher.
        geometry: use homography for a plane or a camera that only turned, else fundamental.

    Raises:
        ValueError: a file does not exist or is not an image, or the output does not have the suffix of one.
    """
    drawing.check_name(output)
    find_matches = make_matcher(matcher, matching, runtime)
    extract = Extractor(model, **vars(extractor), **vars(runtime), **vars(decode))
    images, features = zip(*(from_file(path, extract) for path in (image0, image1)), strict=True)
    matches = find_matches(*features)
    ends = [side.keypoints[matches.indices[:, i]] for i, side in enumerate(features)]
    agree = verify(ends[0], ends[1], geometry).inliers
    drawing.write(output, drawing.draw_matches(images, ends[0], ends[1], agree))
    return (
        f'{len(features[0])} and {len(features[1])} keypoints, {len(matches)} matches, '
        f'{agree.sum()} of them agree with one {geometry} geometry; see {output}'
    )
