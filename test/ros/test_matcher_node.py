"""The matcher as a separate process, over DDS."""

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField, TimeReference  # noqa: E402
from std_msgs.msg import Header, String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from superpoint_ros import clouds  # noqa: E402
from superpoint_ros.features import Features  # noqa: E402
from superpoint_ros.ros.messages import features_message, image_message  # noqa: E402

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Scene:
    """Points with random descriptors."""

    def __init__(self, count=60, size=64, seed=0):
        self.rng = np.random.default_rng(seed)
        self.points = self.rng.uniform(40, 400, (count, 2)).astype(np.float32)
        descriptors = self.rng.normal(size=(count, size))
        self.descriptors = (descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)).astype(np.float32)

    def features(self, chosen=slice(None), shift=(0, 0)):
        points, descriptors = self.points[chosen], self.descriptors[chosen]
        scores = np.linspace(1, 0.1, len(points), dtype=np.float32)
        return Features(points + np.float32(shift), scores, descriptors, (480, 480))


def header(stamp, frame_id='camera'):
    """A header with a stamp in seconds."""
    made = Header(frame_id=frame_id)
    made.stamp.sec, made.stamp.nanosec = divmod(round(stamp * 1e9), 10**9)
    return made


def seconds(stamp):
    return stamp.sec + stamp.nanosec / 1e9


def records(message, layout):
    """The points of a cloud; checks its layout."""
    wanted = [(f.name, f.offset, f.datatype, f.count) for f in clouds.point_fields(layout)]
    assert [(f.name, f.offset, f.datatype, f.count) for f in message.fields] == wanted
    assert (message.height, message.point_step) == (1, layout.itemsize)
    assert len(message.data) == message.row_step == message.width * message.point_step
    return np.frombuffer(message.data, layout)


class Bench:
    """A matcher process, and a node with publishers and subscriptions."""

    def __init__(self, context, *parameters):
        self.node = rclpy.create_node('bench', context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.received = {}
        self.publishers = {}
        arguments = [argument for parameter in parameters for argument in ('-p', parameter)]
        program = 'from superpoint_ros.ros.matcher_node import main; main()'
        command = [sys.executable, '-c', program, '--ros-args', *arguments]
        environment = {**os.environ, 'ROS_DOMAIN_ID': str(context.get_domain_id())}
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        self.listen(DiagnosticArray, '/diagnostics', 10)

    def listen(self, kind, topic, qos=10):
        self.received[topic] = []
        self.node.create_subscription(kind, topic, self.received[topic].append, qos)

    def publisher(self, kind, topic, qos=10):
        """A publisher that is connected to the matcher."""
        if topic not in self.publishers:
            self.publishers[topic] = self.node.create_publisher(kind, topic, qos)
            assert self.wait(lambda: self.publishers[topic].get_subscription_count()), f'no subscription to {topic}'
            time.sleep(0.1)  # the matcher discovers it slightly later
        return self.publishers[topic]

    def restart_publisher(self, topic):
        self.node.destroy_publisher(self.publishers.pop(topic))

    def ready(self, *topics):
        """Wait until the matcher publishes these topics."""
        for topic in topics:
            assert self.wait(lambda topic=topic: self.node.count_publishers(topic)), f'nobody publishes {topic}'
        time.sleep(0.3)  # the subscription is matched slightly later

    def send(self, features, stamp, topic='features', frame_id='camera'):
        message = features if isinstance(features, PointCloud2) else features_message(features, header(stamp, frame_id))
        self.publisher(PointCloud2, topic).publish(message)

    def wait(self, condition, timeout=20):
        end = time.monotonic() + timeout
        while not condition() and time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)
        return condition()

    def next(self, topic):
        """The next message of a topic."""
        assert self.wait(lambda: self.received[topic]), f'nothing came on {topic}'
        return self.received[topic].pop(0)

    def call(self, kind, name, request):
        client = self.node.create_client(kind, name)
        assert self.wait(client.service_is_ready), f'no service {name}'
        future = client.call_async(request)
        assert self.wait(future.done)
        return future.result()

    def diagnostics(self, topic='matches'):
        """The next status of a topic as a dictionary."""
        self.received['/diagnostics'].clear()

        def statuses():
            messages = self.received['/diagnostics']
            return [s for m in messages for s in m.status if s.name == f'superpoint_matcher: {topic}']

        assert self.wait(statuses)
        status = statuses()[-1]
        return {'level': status.level, 'message': status.message, **{v.key: v.value for v in status.values}}

    def stop(self):
        """Send SIGINT; returns the exit code and the output."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            _, log = self.process.communicate(timeout=20)
        finally:
            self.process.kill()
            self.executor.shutdown()
            self.node.destroy_node()
        return self.process.returncode, log


@pytest.fixture
def bench(context):
    """Makes a Bench; checks that the process ends on SIGINT without a traceback."""
    benches = []

    def make(*parameters):
        benches.append(Bench(context, *parameters))
        return benches[-1]

    yield make
    for made in benches:
        code, log = made.stop()
        assert code == 0, log
        assert 'Traceback' not in log, log


def test_one_camera_gives_tracks_and_matches(bench):
    scene, node = Scene(), bench()
    node.listen(PointCloud2, 'tracks')
    node.listen(PointCloud2, 'matches')
    node.listen(TimeReference, 'matches/first')
    node.ready('tracks', 'matches', 'matches/first')

    node.send(scene.features(slice(0, 50)), 1.25)
    tracks = records(node.next('tracks'), clouds.TRACK)
    assert tracks['id'].tolist() == list(range(50))
    assert (tracks['age'] == 1).all()

    order = np.random.default_rng(1).permutation(np.arange(10, 60))
    node.send(scene.features(order, shift=(3, 1)), 1.5, frame_id='camera2')
    message = node.next('tracks')
    assert (message.header.frame_id, seconds(message.header.stamp)) == ('camera2', 1.5)
    tracks = records(message, clouds.TRACK)
    assert [number for number, point in zip(tracks['id'], order, strict=True) if point < 50] == [
        point for point in order if point < 50
    ]
    assert set(tracks['id'][order >= 50]) == set(range(50, 60))
    np.testing.assert_array_equal(tracks['age'], np.where(order < 50, 2, 1))
    np.testing.assert_allclose(np.stack([tracks['x'], tracks['y']], 1), scene.points[order] + (3, 1), atol=1e-4)

    message, first = node.next('matches'), node.next('matches/first')
    assert message.header == first.header == header(1.5, 'camera2')
    assert (seconds(first.time_ref), first.source) == (1.25, 'camera')
    matches = records(message, clouds.MATCH)
    assert matches['index0'].tolist() == list(range(10, 50))
    np.testing.assert_array_equal(order[matches['index1']], matches['index0'])
    np.testing.assert_allclose(matches['x1'] - matches['x0'], 3, atol=1e-4)
    np.testing.assert_allclose(matches['y1'] - matches['y0'], 1, atol=1e-4)
    assert (matches['similarity'] > 0.99).all()
    assert not node.received['matches'], 'the first frame has no matches'


def test_frames_are_matched_with_a_reference_frame(bench):
    scene, node = Scene(), bench()
    node.listen(PointCloud2, 'matches')
    node.listen(TimeReference, 'matches/first')
    node.ready('matches', 'matches/first')
    answer = node.call(Trigger, 'superpoint_matcher/set_reference', Trigger.Request())
    assert not answer.success
    assert 'no frame' in answer.message
    node.send(scene.features(), 1.0)
    node.send(scene.features(), 1.1)
    assert seconds(node.next('matches/first').time_ref) == 1.0
    answer = node.call(Trigger, 'superpoint_matcher/set_reference', Trigger.Request())
    assert answer.success
    assert '1.100000000' in answer.message
    for stamp in (1.2, 1.3):
        node.send(scene.features(shift=(300, 0)), stamp)
        first = node.next('matches/first')
        assert (seconds(first.time_ref), seconds(first.header.stamp)) == (1.1, stamp)
    assert node.call(Trigger, 'superpoint_matcher/clear_reference', Trigger.Request()).success
    node.send(scene.features(), 1.4)
    assert seconds(node.next('matches/first').time_ref) == 1.3


def info(checksum='0' * 64, size=64, image_size=(480, 480)):
    return String(data=clouds.features_info('superpoint', checksum, size, 'int8', image_size))


def test_tracks_restart_when_the_stream_changes(bench):
    scene, node = Scene(20), bench()
    node.listen(PointCloud2, 'tracks')
    node.ready('tracks')

    def ids(features, stamp):
        node.send(features, stamp)
        return records(node.next('tracks'), clouds.TRACK)['id'].tolist()

    node.publisher(String, 'features/info', LATCHED).publish(info())
    assert ids(scene.features(), 100.0) == list(range(20))
    assert ids(scene.features(), 100.1) == list(range(20))
    node.send(scene.features(), 99.9)  # late: gives no tracks
    assert ids(scene.features(), 100.2) == list(range(20))
    assert ids(scene.features(), 50.0) == list(range(20, 40)), 'a bag that loops'
    assert ids(scene.features(), 50.1) == list(range(20, 40))
    assert ids(Scene(20, size=32).features(), 50.2) == list(range(40, 60)), 'another size of descriptors'
    assert ids(scene.features(), 50.3) == list(range(60, 80))
    node.publishers['features/info'].publish(info('1' * 64))
    time.sleep(0.3)
    assert ids(scene.features(), 50.4) == list(range(80, 100)), 'another model'
    node.publishers['features/info'].publish(info('1' * 64, image_size=(320, 240)))
    time.sleep(0.3)
    assert ids(scene.features(), 50.5) == list(range(100, 120)), 'another image size'
    node.restart_publisher('features')
    assert ids(scene.features(), 50.6) == list(range(120, 140)), 'another publisher'
    status = node.diagnostics()
    assert (status['resets'], status['out of order'], status['bad']) == ('6', '1', '0')
    _, log = node.stop()
    for reason in (
        'the clock jumped back by 50.2 s',
        'the descriptor size changed from 64 to 32',
        'the model changed',
        'the image size changed from 480×480 to 320×240',
        'the publisher changed',
    ):
        assert f'features: {reason}' in log


def test_frames_whose_stamps_do_not_increase_are_reported(bench):
    scene, node = Scene(20), bench()

    def warned():
        node.send(scene.features(), 0.0)
        status = node.diagnostics()
        return (status['level'], status['message']) == (
            DiagnosticStatus.WARN,
            'no tracks: the stamps of the frames do not increase',
        )

    assert node.wait(warned), node.diagnostics()

    stamps = itertools.count(1)

    def well():
        node.send(scene.features(), next(stamps) * 0.1)
        return node.diagnostics()['level'] == DiagnosticStatus.OK

    assert node.wait(well), node.diagnostics()


def test_the_model_of_a_detector_that_started_while_the_matcher_was_inactive_is_known(bench):
    scene, node = Scene(), bench('pairs:=["left:right"]')
    node.listen(PointCloud2, 'matches')
    node.ready('matches')

    def change(transition):
        request = ChangeState.Request()
        request.transition.id = transition
        assert node.call(ChangeState, 'superpoint_matcher/change_state', request).success

    def publish(stamp):
        for camera in ('left', 'right'):
            node.send(scene.features(), stamp, f'{camera}/features')
        assert seconds(node.next('matches').header.stamp) == stamp

    for camera in ('left', 'right'):
        node.publisher(String, f'{camera}/features/info', LATCHED).publish(info('a'))
    time.sleep(0.3)
    publish(1.0)
    change(Transition.TRANSITION_DEACTIVATE)
    node.restart_publisher('left/features')
    node.restart_publisher('left/features/info')
    node.publishers['left/features/info'] = node.node.create_publisher(String, 'left/features/info', LATCHED)
    node.publishers['left/features/info'].publish(info('a'))
    change(Transition.TRANSITION_ACTIVATE)
    node.publisher(PointCloud2, 'left/features')
    time.sleep(2)  # the camera is slow, so that the first features come long after the latched info
    publish(2.0)


def bad_clouds(good):
    """Name → a wrong cloud, and words of its error."""

    def change(**attributes):
        message = features_message(good, header(1.0))
        for name, value in attributes.items():
            setattr(message, name, value)
        return message

    nan = Features(good.keypoints.copy(), good.scores, good.descriptors, good.image_size)
    nan.keypoints[3] = np.nan
    fields = change().fields
    return {
        'too short': (change(width=1000), 'bytes'),
        'an absurd size': (change(width=2**32 - 1, height=2**32 - 1), 'more than max_points'),
        'too many points': (features_message(Scene(4097, 8).features(), header(1.0)), 'max_points (4096): raise'),
        'no x': (change(fields=fields[1:]), 'x'),
        'a field beyond the point': (
            change(fields=[*fields[:3], PointField(name='descriptor', offset=1000, datatype=1, count=64)]),
            '',
        ),
        'an unknown datatype': (change(fields=[PointField(name='x', datatype=77, count=1), *fields[1:]]), '77'),
        'no descriptors': (change(fields=fields[:3]), 'no descriptors'),
        'big-endian': (change(is_bigendian=True), 'little-endian'),
        'points without size': (change(point_step=0), ''),
        'not a number': (features_message(nan, header(1.0)), 'finite'),
    }


def test_bad_clouds_are_counted_and_the_next_good_one_is_processed(bench):
    scene, node = Scene(), bench()
    node.listen(PointCloud2, 'tracks')
    node.ready('tracks')
    node.send(scene.features(), 1.0)
    first = records(node.next('tracks'), clouds.TRACK)
    bad = bad_clouds(scene.features())
    for count, (message, words) in enumerate(bad.values(), 1):
        node.send(message, 0)
        while (status := node.diagnostics())['bad'] != str(count):
            assert status['bad'] == str(count - 1)
        assert words in status['last error'], status
        assert status['level'] != DiagnosticStatus.OK
        assert not node.received['tracks']
    node.send(scene.features(), 2.0)
    np.testing.assert_array_equal(records(node.next('tracks'), clouds.TRACK)['id'], first['id'])
    node.send(scene.features([]), 3.0)  # an image without features is not bad
    assert len(records(node.next('tracks'), clouds.TRACK)) == 0
    assert node.diagnostics()['bad'] == str(len(bad))


def test_a_stereo_pair_is_matched_by_stamp_inside_the_epipolar_band(bench):
    scene = Scene()
    node = bench('pairs:=["left:right"]', 'sync_tolerance:=0.01', 'epipolar_band:=2.0', 'depth:=5')
    node.listen(PointCloud2, 'matches')
    node.listen(TimeReference, 'matches/first')
    node.ready('matches', 'matches/first')
    half = np.arange(60) < 30

    def right(stamp):
        """Half of the points move along their row, the others off it."""
        features = scene.features()
        features.keypoints[half] -= (12, 0)
        features.keypoints[~half] -= (12, 5)
        node.send(features, stamp, 'right/features', 'right')

    def left(stamp):
        node.send(scene.features(), stamp, 'left/features', 'left')

    left(1.0)
    right(1.004)
    message, first = node.next('matches'), node.next('matches/first')
    assert message.header == header(1.004, 'right')
    assert (first.time_ref, first.source) == (header(1.0).stamp, 'left')
    matches = records(message, clouds.MATCH)
    assert matches['index0'].tolist() == matches['index1'].tolist() == list(range(30))
    np.testing.assert_allclose(matches['x0'] - matches['x1'], 12, atol=1e-4)

    # The right image of 1.1 is lost; 1.3 and 1.2 arrive in the wrong order. The order of two topics is undefined.
    left(1.1)
    for stamp in (1.2, 1.3):
        left(stamp)
    for stamp in (1.3, 1.2, 1.4):
        right(stamp)
    left(1.4)
    assert sorted(seconds(node.next('matches').header.stamp) for _ in range(3)) == [1.2, 1.3, 1.4]
    for stamp in (1.5, 1.6, 1.7, 1.8, 1.9):
        left(stamp)
    assert node.wait(lambda: node.diagnostics()['unpaired'] == '1'), '1.1 is given up'
    assert node.diagnostics()['right out of order'] == '1'
    right(1.9)
    assert seconds(node.next('matches').header.stamp) == 1.9


@pytest.mark.parametrize(
    ('difference', 'words'),
    [(0.007, ('differ by 7.0 ms', 'raise sync_tolerance')), (60.0, ('ms', 'synchronize the clocks of the cameras'))],
)
def test_a_pair_with_unequal_stamps_says_by_how_much_they_differ(bench, difference, words):
    scene, node = Scene(), bench('pairs:=["left:right"]')
    stamps = itertools.count(1)

    def status(difference):
        """The status after another frame of each camera."""
        stamp = next(stamps) * 0.1
        node.send(scene.features(), stamp, 'left/features')
        node.send(scene.features(), stamp + difference, 'right/features')
        return node.diagnostics()

    def warned():
        found = status(difference)
        return found['level'] == DiagnosticStatus.WARN and all(word in found['message'] for word in words)

    assert node.wait(warned), node.diagnostics()
    assert node.wait(lambda: status(0)['level'] == DiagnosticStatus.OK)


@pytest.mark.parametrize('other', ['b', '\ud800'], ids=['text', 'surrogate'])
def test_features_of_two_models_are_not_matched(bench, other):
    scene, node = Scene(), bench('pairs:=["left:right"]')
    node.listen(PointCloud2, 'matches')
    node.ready('matches')
    for camera, checksum in (('left', 'a'), ('right', other)):
        node.publisher(String, f'{camera}/features/info', LATCHED).publish(info(checksum))
    time.sleep(0.3)
    for camera in ('left', 'right'):
        node.send(scene.features(), 1.0, f'{camera}/features')
    assert node.wait(lambda: 'two models' in node.diagnostics()['right last error'])
    assert not node.received['matches']
    node.publishers['right/features/info'].publish(info('a'))
    time.sleep(0.3)
    node.send(scene.features(), 1.1, 'right/features')
    assert node.wait(lambda: node.diagnostics()['right resets'] == '1')
    node.send(scene.features(), 1.1, 'left/features')
    assert seconds(node.next('matches').header.stamp) == 1.1


def test_several_pairs_and_a_camera_at_once(bench):
    scene, node = Scene(), bench('cameras:=[a]', 'pairs:=["a:b", "b:c"]')
    for topic in ('a/b/matches', 'b/c/matches', 'a/tracks'):
        node.listen(PointCloud2, topic)
        node.ready(topic)
    for camera, chosen in (('a', slice(0, 20)), ('b', slice(0, 40)), ('c', slice(10, 60))):
        node.send(scene.features(chosen), 1.0, f'{camera}/features', camera)
    assert len(records(node.next('a/tracks'), clouds.TRACK)) == 20
    assert len(records(node.next('a/b/matches'), clouds.MATCH)) == 20
    message = node.next('b/c/matches')
    assert len(records(message, clouds.MATCH)) == 30
    assert message.header.frame_id == 'c'


def test_matches_are_filtered_by_the_essential_matrix_of_distorted_images(bench):
    """Points in space seen through a distorting lens; some matches are wrong."""
    import cv2

    rng = np.random.default_rng(0)
    scene, node = Scene(100), bench('geometry:=essential', 'geometry_threshold:=1.0')
    node.listen(PointCloud2, 'matches')
    node.ready('matches')
    matrix, distortion = np.array([[400, 0, 320], [0, 400, 240], [0, 0, 1.0]]), np.array([-0.3, 0.1, 0, 0, 0])
    space = rng.uniform((-2, -1.5, 4), (2, 1.5, 8), (100, 3))

    def view(position):
        points, _ = cv2.projectPoints(space, np.zeros(3), -np.array(position, float), matrix, distortion)
        return Features(
            points[:, 0].astype(np.float32), scene.features().scores, scene.features().descriptors, (640, 480)
        )

    node.send(view((0, 0, 0)), 1.0)
    node.send(view((0.3, 0, 0)), 1.1)
    assert node.wait(lambda: 'camera_info' in node.diagnostics()['last error']), 'no calibration yet'
    calibration = CameraInfo(width=640, height=480, distortion_model='plumb_bob')
    calibration.k, calibration.d = matrix.ravel().tolist(), distortion.tolist()
    for _ in range(10):  # a camera sends it with each image; the first may be lost during discovery
        node.publisher(CameraInfo, 'camera_info').publish(calibration)
        time.sleep(0.1)
    seen = view((0.6, 0.1, 0))
    seen.keypoints[:30] += rng.choice([-40, 40], (30, 2))
    node.send(seen, 1.2)
    matches = records(node.next('matches'), clouds.MATCH)
    right = matches['index0'] >= 30
    assert right.sum() >= 65
    assert (~right).sum() <= 6


@pytest.mark.parametrize('cameras', [1, 2])
def test_the_annotated_image_is_published_for_subscribers(bench, cameras):
    scene, node = Scene(), bench(*(['pairs:=["left:right"]'] if cameras == 2 else []))
    node.listen(Image, 'matches/image')
    node.ready('matches/image')
    names = ['left/', 'right/'] if cameras == 2 else ['', '']
    gray = np.full((480, 480), 128, np.uint8)
    for number, name in enumerate(names):
        stamp = 1.0 if cameras == 2 else 1.0 + number
        node.publisher(Image, f'{name}image').publish(image_message(gray, header(stamp)))
        time.sleep(0.3)
        node.send(scene.features(shift=(0, 20 * number)), stamp, f'{name}features')
    picture = node.next('matches/image')
    assert (picture.encoding, picture.height, picture.width) == ('bgr8', 480, 480 * cameras)
    pixels = np.frombuffer(picture.data, np.uint8).reshape(480, -1, 3)
    drawn = (pixels.astype(int).max(2) - pixels.min(2)) > 60
    # Checked halfway between the old and the new position of each point, or at the new position in the right image.
    x, y = np.rint(scene.points + np.array([0, 10] if cameras == 1 else [480, 20])).astype(int).T
    assert drawn[y, x].mean() > 0.95


def test_live_parameters_change_while_it_runs(bench):
    scene, node = Scene(), bench('min_similarity:=0.5')
    node.listen(PointCloud2, 'matches')
    node.ready('matches')

    def put(name, value):
        kinds = {
            float: ('double_value', ParameterType.PARAMETER_DOUBLE),
            int: ('integer_value', ParameterType.PARAMETER_INTEGER),
            str: ('string_value', ParameterType.PARAMETER_STRING),
        }
        attribute, kind = kinds[type(value)]
        parameter = Parameter(name=name, value=ParameterValue(type=kind, **{attribute: value}))
        request = SetParameters.Request(parameters=[parameter])
        return node.call(SetParameters, 'superpoint_matcher/set_parameters', request).results[0]

    assert put('max_points', 59).successful
    node.send(scene.features(), 0.8)
    assert node.wait(lambda: 'the cloud has 60 points' in node.diagnostics()['last error'])
    assert put('max_points', 60).successful
    other = Scene()
    other.descriptors = scene.descriptors + 0.08 * other.rng.normal(size=scene.descriptors.shape).astype(np.float32)
    other.descriptors /= np.linalg.norm(other.descriptors, axis=1, keepdims=True)
    node.send(scene.features(), 1.0)
    node.send(other.features(), 1.1)
    assert len(records(node.next('matches'), clouds.MATCH)) == 60
    assert put('min_similarity', 0.99).successful
    node.send(scene.features(), 1.2)
    assert len(records(node.next('matches'), clouds.MATCH)) == 0
    assert not put('min_similarity', 2.0).successful
    refused = put('geometry', 'homography')
    assert not refused.successful
    assert 'configured' in refused.reason


@pytest.mark.parametrize(
    ('parameter', 'words'),
    [
        ('pairs:=[left]', "pairs: expected two names of cameras as in left:right, got 'left'"),
        ('pairs:=["a:b", "a:b"]', 'pairs: expected different pairs, got a:b, a:b'),
        ('matcher:=none', "matcher 'none' is neither one of nearest, learned, "),
        ('cameras:=[a, a]', 'cameras: expected different names, got a, a'),
        ('cameras:=[/left]', 'cameras: expected relative namespaces such as left or robot/left'),
        ('pairs:=["left:1st"]', "(letters, digits, _ and /), got '1st'"),
    ],
)
def test_wrong_parameters_end_the_node_with_one_sentence(context, parameter, words):
    node = Bench(context, parameter)
    node.process.wait(timeout=60)
    code, log = node.stop()
    assert code == 1
    assert words in log
    assert 'Traceback' not in log


@pytest.fixture
def learned(make_matcher):
    """Parameters of a learned matcher for the features of a Scene."""
    path = make_matcher(descriptor_size=64, width=64, extractor='superpoint', extractor_checksum='0' * 64)
    return f'matcher:={path}', 'backend:=openvino', 'min_similarity:=0.3'


def test_a_learned_matcher_matches_frames_and_a_reference_frame(bench, learned):
    scene, node = Scene(), bench(*learned)
    node.listen(PointCloud2, 'matches')
    node.listen(PointCloud2, 'tracks')
    node.listen(TimeReference, 'matches/first')
    node.ready('matches', 'tracks', 'matches/first')
    node.publisher(String, 'features/info', LATCHED).publish(info())
    time.sleep(0.3)
    node.send(scene.features(slice(0, 50)), 1.0)
    node.send(scene.features(slice(10, 60), shift=(200, 30)), 1.1)
    matches = records(node.next('matches'), clouds.MATCH)
    assert len(matches) > 30
    assert (matches['index1'] + 10 == matches['index0']).mean() > 0.9, 'an untrained matcher errs now and then'
    assert ((matches['similarity'] >= 0.3) & (matches['similarity'] < 0.99)).all(), 'probabilities'
    node.next('tracks')
    assert (records(node.next('tracks'), clouds.TRACK)['age'] == 2).sum() == 40, 'tracks are of nearest neighbors'
    assert node.call(Trigger, 'superpoint_matcher/set_reference', Trigger.Request()).success
    for stamp in (1.2, 1.3):
        node.send(scene.features(), stamp)
        matches = records(node.next('matches'), clouds.MATCH)
        assert (matches['index0'] + 10 == matches['index1']).mean() > 0.9
        assert len(matches) > 30
    assert [seconds(node.next('matches/first').time_ref) for _ in range(3)] == [1.0, 1.1, 1.1]
    request = SetParameters.Request()
    probability = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=1.0)
    request.parameters = [Parameter(name='min_similarity', value=probability)]
    assert node.call(SetParameters, 'superpoint_matcher/set_parameters', request).results[0].successful
    node.send(scene.features(), 1.4)
    assert not len(records(node.next('matches'), clouds.MATCH))


def test_a_learned_matcher_matches_pairs_and_refuses_features_of_another_model(bench, learned):
    scene, node = Scene(), bench(*learned, 'pairs:=["left:right"]')
    node.listen(PointCloud2, 'matches')
    node.ready('matches')
    for camera in ('left', 'right'):
        node.publisher(String, f'{camera}/features/info', LATCHED).publish(info())
    time.sleep(0.3)

    def send(stamp):
        for camera in ('left', 'right'):
            node.send(scene.features(), stamp, f'{camera}/features', camera)

    send(1.0)
    matches = records(node.next('matches'), clouds.MATCH)
    assert len(matches) > 40
    assert (matches['index0'] == matches['index1']).all()
    for camera in ('left', 'right'):
        node.publishers[f'{camera}/features/info'].publish(info('1' * 64))
    time.sleep(0.3)
    expected = 'was trained for features of superpoint (checksum 000000000000), not for those of checksum 111111111111'
    for number in range(10):  # the cameras restart one after the other, which may cost a pair
        send(2.0 + number)
        if node.wait(lambda: expected in str(node.diagnostics()), timeout=2):
            break
    else:
        pytest.fail(str(node.diagnostics()))
    for camera in ('left', 'right'):
        node.publishers[f'{camera}/features/info'].publish(info())
    time.sleep(0.3)
    for number in range(10):
        send(20.0 + number)
        if node.wait(lambda: node.received['matches'], timeout=2):
            break
    assert len(records(node.next('matches'), clouds.MATCH)) > 40


def test_a_learned_matcher_waits_for_the_image_size(bench, learned):
    scene, node = Scene(), bench(*learned)
    node.listen(PointCloud2, 'matches')
    node.listen(PointCloud2, 'tracks')
    node.ready('matches', 'tracks')
    for stamp in (1.0, 1.1):
        node.send(scene.features(), stamp)
        assert seconds(node.next('tracks').header.stamp) == stamp, 'tracks do not need the matcher'
    assert node.wait(lambda: 'needs the size of the image, which is unknown' in str(node.diagnostics()))
    node.publisher(String, 'features/info', LATCHED).publish(info())
    time.sleep(0.3)
    node.send(scene.features(), 1.2)
    node.send(scene.features(), 1.3)
    assert len(records(node.next('matches'), clouds.MATCH)) > 40
