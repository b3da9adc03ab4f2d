"""A small share of the attacks; `make fuzz` runs more."""

import pytest

pytest.importorskip('openvino', reason='needs OpenVINO to run a model')
pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from test.fuzz.__main__ import TARGETS, run

MOST = {'lifecycle': 3, 'parameters': 3, 'signals': 2, 'bags': 10, 'models': 8}


@pytest.mark.parametrize('target', TARGETS)
def test_bad_input_is_processed_or_refused(target):
    summary = run(target, seconds=60, seed=0, most=MOST.get(target, 4))
    assert not summary.faults, summary
    assert summary.tried
