"""Measures detectors, descriptors and matchers, ours and OpenCV's, by published protocols (docs/evaluation.md)."""
