"""`superpoint detect` and `superpoint match`: features of image files, and matches of two of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from rich.progress import track

from superpoint_ros import drawing
from superpoint_ros.decode import DecodeConfig
from superpoint_ros.extractor import Extractor, ExtractorConfig
from superpoint_ros.files import written_whole
from superpoint_ros.matching import MatchConfig, verify
from superpoint_ros.matching import match as match_features
from superpoint_ros.runtimes import RuntimeConfig

ARRAYS = ('keypoints', 'scores', 'descriptors', 'image_size')
"""Attributes of Features in an .npz file."""

SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.pgm', '.bmp', '.tif', '.tiff', '.webp')


def detect(
    images: Sequence[Path],
    output: Path = Path('features'),
    model: str = 'superpoint',
    pictures: bool = True,
    extractor: ExtractorConfig = ExtractorConfig(),
    runtime: RuntimeConfig = RuntimeConfig(),
    decode: DecodeConfig = DecodeConfig(),
) -> bool:
    """Find the features of image files, and write them to .npz files and pictures.

    Args:
        images: image files, or folders of them.
        output: folder for NAME.npz (keypoints, scores, descriptors, image_size as in features.Features) and
            NAME.png (the keypoints drawn, the best yellow).
        model: a shipped model's name, or the path of a .safetensors or .onnx file.
        pictures: write pictures, too.
        extractor: at which size the network sees the images.
        runtime: which back end runs the network.
        decode: which keypoints are taken.

    Returns:
        Whether every image could be read; those that could not are listed at the end.

    Raises:
        FileNotFoundError: no such file or folder, or a folder without images.
    """
    extract = make_extractor(model, extractor, runtime, decode)
    failed = []
    for path, name in track(list(_files(images)), 'detecting'):
        try:
            image = read_image(path)
            features = extract(image)
        except ValueError as error:
            failed.append(str(error))
            continue
        with written_whole(output / f'{name}.npz') as partial:
            np.savez(partial, **{name: getattr(features, name) for name in ARRAYS})
        if pictures:
            with written_whole(output / f'{name}.png') as partial:
                cv2.imwrite(str(partial), drawing.draw_keypoints(_eight_bits(image), features))
    if failed:
        print(f'{len(failed)} of the images could not be used:', *failed, sep='\n  ')
    return not failed


def match(
    image0: Path,
    image1: Path,
    output: Path = Path('matches.png'),
    model: str = 'superpoint',
    geometry: Literal['homography', 'fundamental'] = 'fundamental',
    extractor: ExtractorConfig = ExtractorConfig(),
    runtime: RuntimeConfig = RuntimeConfig(),
    decode: DecodeConfig = DecodeConfig(),
    matching: MatchConfig = MatchConfig(),
) -> str:
    """Match two image files, and draw the matches: green if they agree with one geometry, else red.

    Args:
        image0: the first image.
        image1: the second one.
        output: the picture to write.
        model: a shipped model's name, or the path of a .safetensors or .onnx file.
        geometry: homography for a plane or a camera that only turned, else fundamental.
        extractor: at which size the network sees the images.
        runtime: which back end runs the network.
        decode: which keypoints are taken.
        matching: what makes a match.

    Returns:
        How many matches there are, and how many agree.

    Raises:
        ValueError: a file is not an image.
        FileNotFoundError: no such file.
    """
    extract = make_extractor(model, extractor, runtime, decode)
    images = read_image(image0), read_image(image1)
    features = extract(images[0]), extract(images[1])
    matches = match_features(*features, matching)
    ends = [side.keypoints[matches.indices[:, i]] for i, side in enumerate(features)]
    right = verify(ends[0], ends[1], geometry).inliers
    picture = drawing.draw_matches((_eight_bits(images[0]), _eight_bits(images[1])), features, matches, right)
    with written_whole(output) as partial:
        cv2.imwrite(str(partial), picture)
    return (
        f'{len(features[0])} and {len(features[1])} keypoints, {len(matches)} matches, '
        f'{right.sum()} of them agree with one {geometry} geometry; see {output}'
    )


def make_extractor(model: str, *configs: Any) -> Extractor:
    """An Extractor with the options of some configurations."""
    return Extractor(model, **{name: value for config in configs for name, value in vars(config).items()})


def read_image(path: Path) -> npt.NDArray[Any]:
    """An image file as it is: 8 or 16 bits, gray, BGR or BGRA.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image that OpenCV can read.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f'{path}: not an image that OpenCV can read')
    return image


def _files(images: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Each image file, and what its results are called: its name, below a folder that was given its path there."""
    for path in images:
        if not path.is_dir():
            if not path.is_file():
                raise FileNotFoundError(f'{path}: no such file or folder')
            yield path, path.name
            continue
        inside = sorted(file for file in path.rglob('*') if file.suffix.lower() in SUFFIXES)
        if not inside:
            raise FileNotFoundError(f'{path}: no images in this folder; expected files ending in {", ".join(SUFFIXES)}')
        yield from ((file, str(file.relative_to(path))) for file in inside)


def _eight_bits(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.asarray(
        image if image.dtype == np.uint8 else cv2.convertScaleAbs(image, alpha=255 / image.max(initial=1))
    )
