import os

import numpy as np
import pytest

DOMAIN = os.getpid() % 100 + 1
"""ROS_DOMAIN_ID of these tests, which separates them from other ROS programs on the machine. Above 101, DDS uses ports
that the kernel also gives to other programs."""


@pytest.fixture(scope='session', autouse=True)
def udp():
    """Fast DDS without shared memory, whose ports may be unusable after a test has killed a process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('FASTDDS_BUILTIN_TRANSPORTS', 'UDPv4')
        yield


@pytest.fixture(scope='session')
def domain():
    return DOMAIN


@pytest.fixture(scope='session')
def context(udp):
    """A ROS context in the domain of these tests."""
    rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    made = rclpy.Context()
    rclpy.init(context=made, domain_id=DOMAIN)
    yield made
    made.try_shutdown()


@pytest.fixture(scope='session')
def photo():
    """(240, 320) gray image with texture."""
    coarse = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
    return np.kron(coarse, np.ones((8, 8), np.uint8))


@pytest.fixture
def node(context):
    """A node of the tests' own process."""
    import rclpy

    made = rclpy.create_node('under_test', context=context)
    yield made
    made.destroy_node()
