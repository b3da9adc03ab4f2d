"""Measures times, memory and latency for `superpoint benchmark`."""
