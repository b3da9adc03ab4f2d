"""Measures detectors and descriptors, ours and OpenCV's, by the published protocols (docs/evaluation.md)."""
