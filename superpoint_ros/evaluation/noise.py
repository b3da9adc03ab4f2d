"""Random photometric changes of an image, for synthetic test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from superpoint_ros.features import Floats, Image

Change = Callable[[Floats, np.random.Generator, float], Floats]


def _contrast(gray: Floats, rng: np.random.Generator, strength: float) -> Floats:
    factor = np.float32(1 + 0.6 * strength)
    mean = gray.mean()
    return mean + (gray - mean) * (factor if rng.random() < 0.5 else 1 / factor)


def _brightness(gray: Floats, rng: np.random.Generator, strength: float) -> Floats:
    return gray + np.float32(50 * strength * rng.choice([-1, 1]))


def _shade(gray: Floats, rng: np.random.Generator, strength: float) -> Floats:
    """Darken, or brighten, soft-edged ellipses."""
    height, width = gray.shape
    shade = np.zeros(gray.shape, np.float32)
    for _ in range(rng.integers(1, 6)):
        center = (int(rng.integers(width)), int(rng.integers(height)))
        axes = tuple(int(a) for a in rng.uniform(0.1, 0.5, 2) * min(width, height) + 1)
        cv2.ellipse(shade, center, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    soft = cv2.GaussianBlur(shade, (0, 0), float(rng.uniform(0.04, 0.12) * min(width, height)))
    return gray * (1 + np.float32(0.7 * strength * rng.choice([-1, 1])) * np.asarray(soft, np.float32))


def _blur(gray: Floats, rng: np.random.Generator, strength: float) -> Floats:  # noqa: ARG001 (as the others are called)
    return np.asarray(cv2.GaussianBlur(gray, (0, 0), max(1.2 * strength, 0.1)), np.float32)


def _motion_blur(gray: Floats, rng: np.random.Generator, strength: float) -> Floats:
    """Blur along a centered line of up to 9 pixels; points stay where they are."""
    half = 4 * strength
    angle = rng.uniform(0, np.pi)
    kernel = np.zeros((9, 9), np.float32)
    for t in np.linspace(-half, half, 33):
        x, y = 4 + t * np.cos(angle), 4 + t * np.sin(angle)
        left, top = min(int(x), 7), min(int(y), 7)
        fx, fy = x - left, y - top
        kernel[top : top + 2, left : left + 2] += np.outer([1 - fy, fy], [1 - fx, fx]).astype(np.float32)
    blurred = cv2.filter2D(gray, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, np.float32)


def _speckle(gray: Floats, rng: np.random.Generator, strength: float) -> Floats:
    return gray * (1 + np.float32(0.35 * strength) * rng.standard_normal(gray.shape, np.float32))


def _gaussian_noise(gray: Floats, rng: np.random.Generator, strength: float) -> Floats:
    return gray + np.float32(25 * strength) * rng.standard_normal(gray.shape, np.float32)


def _salt_and_pepper(gray: Floats, rng: np.random.Generator, strength: float) -> Floats:
    draw = rng.random(gray.shape, np.float32)
    share = 0.02 * strength
    return np.where(draw < share, 0, np.where(draw > 1 - share, 255, gray)).astype(np.float32)


CAMERA = (_contrast, _brightness, _shade, _motion_blur, _speckle, _gaussian_noise)
"""Changes that a camera makes."""

EVERYTHING = (_contrast, _brightness, _shade, _blur, _motion_blur, _speckle, _gaussian_noise, _salt_and_pepper)
"""Eight changes, as many as the paper counts for noisy Synthetic Shapes (figure 12; its text does not name them)."""


def photometric(image: Image, rng: np.random.Generator, changes: Sequence[Change], strength: float = 1.0) -> Image:
    """Change an image as light, lens and sensor do.

    Each of the changes, CAMERA or EVERYTHING, is applied with probability ½ and a strength that is uniform from 0 to
    the given one. A strength of 1 is a poor camera in poor light: gray levels ±50, Gaussian noise of 25 gray levels,
    speckle of 35 %, 2 % of the pixels white and as many black, contrast × or ÷ 1.6, shade ±70 %, motion blur over 9 px.
    """
    gray = image.astype(np.float32)
    for change in changes:
        if rng.random() < 0.5:
            gray = change(gray, rng, strength * rng.random())
    return np.rint(gray).clip(0, 255).astype(np.uint8)
