import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

CAMERA = 'from superpoint_ros.demo.camera import main; main()'


@pytest.mark.parametrize(
    ('rate', 'error'),
    [
        ('30', 'source /nowhere: no such file or folder'),
        ('0.5', 'source /nowhere: no such file or folder'),
        ('2000', 'rate: 2000 is out of range, expected 0.1 to 1000 Hz'),
        ('fast', 'rate: fast is out of range, expected 0.1 to 1000 Hz'),
    ],
)
def test_the_rate_may_be_an_integer_and_a_wrong_one_gets_one_sentence(rate, error):
    command = [sys.executable, '-c', CAMERA, '--ros-args', '-p', 'source:=/nowhere', '-p', f'rate:={rate}']
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f'superpoint_camera: {error}')
    assert len(ended.stderr.splitlines()) == 1
