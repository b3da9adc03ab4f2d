"""The detector as a separate process, over DDS."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header, String

from superpoint_ros import resources
from superpoint_ros.ros.messages import features_from_message, image_message

STAMPS = itertools.count(1)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
CHANGES = {'configure': 1, 'cleanup': 2, 'activate': 3, 'deactivate': 4}

HELD = """
import sys, time
from pathlib import Path
from superpoint_ros.extractor import Extractor
from superpoint_ros.ros.detector_node import DetectorNode
from superpoint_ros.ros.process import run

class Held(Extractor):
    def batch(self, images, masks=None):
        while Path({path!r}).exists():
            time.sleep(0.01)
        print('batch of', len(images), flush=True)
        return super().batch(images, masks)

sys.exit(run(lambda: DetectorNode(Held)))
"""
"""A detector whose network waits while a file exists."""


CAMERA = """
import time
import numpy as np
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from superpoint_ros.ros.messages import image_message

rclpy.init()
node = rclpy.create_node('camera')
publisher = node.create_publisher(Image, 'image', qos_profile_sensor_data)
noise = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
while True:
    publisher.publish(image_message(noise, Header()))
    time.sleep(0.2)
"""
"""Publishes images of 6 MB best-effort; without the profile they do not arrive."""


def header():
    """A header with a unique stamp."""
    made = Header(frame_id='camera')
    made.stamp.sec, made.stamp.nanosec = 1_700_000_000, next(STAMPS)
    return made


def encoded(pixels, encoding, **changed):
    """An image message with these pixels, and optionally changed fields."""
    message = image_message(np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1), header())
    message.encoding, message.width = encoding, pixels.shape[1]
    for name, value in changed.items():
        setattr(message, name, value)
    return message


class Bench:
    """A detector process, and a node with publishers and subscriptions."""

    def __init__(
        self,
        context,
        *parameters,
        program='from superpoint_ros.ros.detector_node import main; main()',
        environment=None,
    ):
        self.node = rclpy.create_node('bench', context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.received = {}
        self.publishers = {}
        self.clients = {}
        arguments = [argument for parameter in parameters for argument in ('-p', parameter)]
        self.environment = {**os.environ, 'ROS_DOMAIN_ID': str(context.get_domain_id()), **(environment or {})}
        self.process = subprocess.Popen(
            [sys.executable, '-c', program, '--ros-args', *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.listen(DiagnosticArray, '/diagnostics')

    def wait(self, condition, timeout=30):
        end = time.monotonic() + timeout
        while not (result := condition()) and time.monotonic() < end:
            assert self.process.poll() is None, self.process.stdout.read()
            self.executor.spin_once(timeout_sec=0.05)
        return result

    def listen(self, kind, topic, qos=10):
        self.received[topic] = []
        return self.node.create_subscription(kind, topic, self.received[topic].append, qos)

    def publisher(self, kind, topic, qos=10):
        """A publisher that is connected to the detector; also subscribes to the features."""
        if topic not in self.publishers:
            features = topic.removesuffix('/compressed').removesuffix('image') + 'features'
            if features not in self.received:
                self.listen(PointCloud2, features)
            self.publishers[topic] = self.node.create_publisher(kind, topic, qos)
        publisher = self.publishers[topic]
        assert self.wait(publisher.get_subscription_count), f'the detector does not listen to {topic}'
        assert self.wait(lambda: self.node.count_publishers(features_topic(topic)))
        return publisher

    def forget(self, topic):
        """Destroy the publisher of a topic, if there is one."""
        if topic in self.publishers:
            self.node.destroy_publisher(self.publishers.pop(topic))

    def send(self, message, topic='image', qos=10):
        self.publisher(type(message), topic, qos).publish(message)

    def answer(self, message, topic='image', qos=10):
        """The features of an image message, which is published again if it is lost during discovery."""

        def mine():
            return [m for m in self.received[features_topic(topic)] if m.header == message.header]

        self.publisher(type(message), topic, qos)
        for _ in range(5):
            self.publishers[topic].publish(message)
            if self.wait(mine, timeout=5):
                return features_from_message(mine()[0])
        pytest.fail(f'no features of {topic}')

    def status(self, condition=bool, name='superpoint_detector'):
        """The next status that meets a condition: values, level and message in one dictionary."""
        self.received['/diagnostics'].clear()

        def found():
            statuses = (s for m in self.received['/diagnostics'] for s in m.status if s.name == name)
            results = ({**{v.key: v.value for v in s.values}, 'level': s.level, 'message': s.message} for s in statuses)
            return next(filter(condition, results), None)

        result = self.wait(found)
        assert result, f'not on /diagnostics: {self.received["/diagnostics"][-1:]}'
        return result

    def call(self, kind, name, request):
        if name not in self.clients:
            self.clients[name] = self.node.create_client(kind, f'/superpoint_detector/{name}')
            assert self.wait(self.clients[name].service_is_ready), f'no service {name}'
            self.wait(lambda: False, timeout=0.5)  # an answer before discovery is complete would be lost
        future = self.clients[name].call_async(request)
        assert self.wait(future.done), f'no answer of {name}'
        return future.result()

    def change(self, transition):
        request = ChangeState.Request()
        request.transition.id = CHANGES[transition]
        return self.call(ChangeState, 'change_state', request).success

    def state(self):
        return self.call(GetState, 'get_state', GetState.Request()).current_state.label

    def set(self, name, value):
        kind = Parameter.Type.STRING_ARRAY if isinstance(value, list) else None
        request = SetParameters.Request(parameters=[Parameter(name, kind, value).to_parameter_msg()])
        return self.call(SetParameters, 'set_parameters', request).results[0]

    def stop(self, *signals):
        """Send signals to the detector; returns its exit code and output."""
        for number in signals or (signal.SIGINT,):
            self.process.send_signal(number)
            time.sleep(0.02)
        output = self.process.communicate(timeout=20)[0]
        return self.process.returncode, output

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        self.node.destroy_node()
        self.executor.shutdown()


def features_topic(image_topic):
    return image_topic.removesuffix('/compressed').removesuffix('image') + 'features'


@pytest.fixture
def start(context):
    """Starts detectors that are stopped at the end of the test."""
    benches = []

    def starter(*parameters, **options):
        benches.append(Bench(context, *parameters, **options))
        return benches[-1]

    yield starter
    for bench in benches:
        bench.close()


@pytest.fixture(scope='class')
def bench(context, tiny_model):
    """A detector with one camera for several tests; checks that it ends without errors."""
    made = Bench(context, f'model:={tiny_model}')
    yield made
    code, output = made.stop()
    made.close()
    assert code == 0, output
    assert 'Traceback' not in output
    assert 'incompatible QoS' not in output


def encodings(photo):
    gray, four = photo, np.dstack([photo] * 3 + [np.full_like(photo, 9)])
    chroma = np.full_like(photo, 77)
    half = np.full((len(photo) // 2, photo.shape[1]), 77, np.uint8)
    same = {
        'mono8': gray,
        '8UC1': gray,
        'rgb8': four[..., :3],
        'bgr8': four[..., :3],
        'rgba8': four,
        'bgra8': four,
        'mono16': gray.astype('<u2') * 257,
        'uyvy': np.dstack([chroma, gray]),
        'yuv422': np.dstack([chroma, gray]),
        'yuv422_yuy2': np.dstack([gray, chroma]),
        'nv12': np.vstack([gray, half]),
        'nv21': np.vstack([gray, half]),
    }
    near = {
        **{f'bayer_{pattern}8': gray for pattern in ('rggb', 'bggr', 'gbrg', 'grbg')},
        **{f'bayer_{pattern}16': gray.astype('<u2') * 257 for pattern in ('rggb', 'bggr', 'gbrg', 'grbg')},
        '16UC1': gray.astype('<u2') * 4,
        '32FC1': gray.astype('<f4') / 1000,
    }
    return same, near


class TestOneCamera:
    def test_every_encoding_gives_features_with_the_header_of_its_image(self, bench, photo):
        same, near = encodings(photo)
        expected = bench.answer(image_message(photo, header()))
        assert len(expected) > 50
        assert expected.descriptors.shape[1] == 32
        for encoding, pixels in same.items():
            found = bench.answer(encoded(pixels, encoding, height=len(photo)))
            np.testing.assert_array_equal(found.keypoints, expected.keypoints, err_msg=encoding)
            np.testing.assert_array_equal(found.descriptors, expected.descriptors, err_msg=encoding)
        for encoding, pixels in near.items():
            assert len(bench.answer(encoded(pixels, encoding))) > 50, encoding

    def test_bad_images_are_counted_and_reported_and_the_next_good_one_is_processed(self, bench, photo):
        good = image_message(photo, header())
        expected = len(bench.answer(good))
        broken = {
            'empty': encoded(photo, 'mono8', height=0),
            'step is 319 bytes': encoded(photo, 'mono8', step=319),
            'data has 76799 bytes': encoded(photo, 'mono8', data=good.data[:-1]),
            "encoding 'mono7' is unknown": encoded(photo, 'mono7'),
            'no pixel is a finite number': encoded(np.full(photo.shape, np.nan, '<f4'), '32FC1'),
            'too many': encoded(photo, 'mono8', height=2**31, width=2**31, step=2**31),
            'expected each side 16 to 8192': encoded(photo[:8, :8], 'mono8'),
        }
        before = bench.status()
        for number, (sentence, message) in enumerate(broken.items(), int(before['bad']) + 1):
            bench.send(message)
            status = bench.status(lambda s, number=number: s['bad'] == str(number))
            assert sentence in status['last error']
            assert sentence in status['message']
            assert status['level'] in (DiagnosticStatus.WARN, DiagnosticStatus.ERROR)
            assert len(bench.answer(image_message(photo, header()))) == expected

    def test_the_image_size_may_change_and_the_info_follows(self, bench, photo):
        bench.listen(String, 'features/info', LATCHED)
        for size in ((320, 240), (200, 150), (1000, 100)):
            found = bench.answer(image_message(cv2.resize(photo, size), header()))
            assert np.all(found.keypoints < size)
            assert bench.wait(lambda: bench.received['features/info'])
            assert bench.wait(
                lambda size=size: json.loads(bench.received['features/info'][-1].data)['image_size'] == list(size)
            )
        info = json.loads(bench.received['features/info'][-1].data)
        assert info['model'] == 'tiny'
        assert len(info['checksum']) == 64
        assert (info['descriptor_size'], info['descriptor_type'], info['descriptor_scale']) == (32, 'int8', 127)

    def test_diagnostics_show_rates_latencies_and_back_end(self, bench, photo):
        for _ in range(5):
            bench.answer(image_message(photo, header()))
        values = bench.status(lambda s: float(s['rate out [Hz]']) > 0)
        assert float(values['latency p99 [ms]']) >= float(values['latency p50 [ms]']) > 0
        assert int(values['received']) >= int(values['published']) + int(values['dropped']) + int(values['bad'])
        assert int(values['keypoints']) > 50
        assert (values['model'], values['back end']) == ('tiny', 'openvino')
        assert values['device']
        assert values['precision'] in ('fp32', 'bf16')

    def test_the_annotated_image_is_published_for_subscribers(self, bench, photo):
        subscription = bench.listen(Image, 'features/image')
        bench.wait(lambda: False, timeout=0.5)
        message = image_message(photo, header())
        bench.answer(message)
        assert bench.wait(lambda: bench.received['features/image'])
        drawn = bench.received['features/image'][-1]
        assert (drawn.header, drawn.encoding, drawn.width, drawn.height) == (message.header, 'bgr8', 320, 240)
        pixels = np.frombuffer(drawn.data, np.uint8).reshape(240, 320, 3)
        assert (pixels != photo[..., None]).any(axis=2).sum() > 100
        bench.node.destroy_subscription(subscription)

    def test_two_publishers_are_reported_and_both_are_received(self, bench, photo):
        bench.answer(image_message(photo, header()))
        second = bench.node.create_publisher(Image, 'image', 10)
        status = bench.status(lambda s: '2 publishers' in s['message'])
        assert status['level'] == DiagnosticStatus.WARN
        assert len(bench.answer(image_message(photo, header())))
        bench.node.destroy_publisher(second)

    def test_reliable_and_best_effort_publishers_are_received_with_their_own_reliability(self, bench, photo):
        bench.forget('image')
        large = cv2.cvtColor(cv2.resize(photo, (640, 480)), cv2.COLOR_GRAY2BGR)
        assert large.nbytes > 512 * 1024
        for qos, image in ((qos_profile_sensor_data, photo), (10, large), (qos_profile_sensor_data, photo)):
            assert len(bench.answer(image_message(image, header()), qos=qos))
            bench.forget('image')
        status = bench.status(lambda s: s['level'] == DiagnosticStatus.STALE)
        assert status['message'] == 'nobody publishes /image'

    def test_a_publisher_without_messages_is_reported_with_a_remedy(self, bench):
        bench.forget('image')
        publisher = bench.node.create_publisher(Image, 'image', qos_profile_sensor_data)
        status = bench.status(lambda s: 'nothing has arrived' in s['message'])
        assert status['level'] == DiagnosticStatus.WARN
        profile = status['message'].split('FASTDDS_DEFAULT_PROFILES_FILE=')[1].split()[0]
        assert '<segment_size>' in open(profile).read()  # noqa: PTH123, SIM115
        bench.node.destroy_publisher(publisher)


def test_large_best_effort_images_arrive_with_the_shipped_profile(start, tiny_model):
    profile = str(resources.find('config/fastdds.xml'))
    bench = start(f'model:={tiny_model}', environment={'FASTDDS_DEFAULT_PROFILES_FILE': profile})
    camera = subprocess.Popen([sys.executable, '-c', CAMERA], env=bench.environment)
    try:
        bench.listen(PointCloud2, 'features')
        assert bench.wait(lambda: len(bench.received['features']) >= 3)
    finally:
        camera.kill()
        camera.wait()


def test_cameras_have_separate_topics_masks_and_errors_and_share_batches(start, tiny_model, photo, tmp_path):
    hold = tmp_path / 'hold'
    mask = np.zeros_like(photo)
    mask[:, 160:] = 255
    cv2.imwrite(str(tmp_path / 'left.png'), mask)
    cv2.imwrite(str(tmp_path / 'right.png'), np.uint16(mask == 0))
    masks = f"['{tmp_path}/left.png','{tmp_path}/right.png']"
    bench = start(
        f'model:={tiny_model}',
        "cameras:=['left','right']",
        f'mask:={masks}',
        'image_transport:=compressed',
        'treshold:=0.1',
        program=HELD.format(path=str(hold)),
    )

    def jpeg(image):
        data = cv2.imencode('.jpg', image)[1].tobytes()
        return CompressedImage(header=header(), format='jpeg', data=data)

    left, right = (bench.answer(jpeg(photo), f'{side}/image/compressed') for side in ('left', 'right'))
    assert len(left) > 20
    assert len(right) > 20
    assert left.keypoints[:, 0].min() >= 155
    assert right.keypoints[:, 0].max() <= 165

    # While the first image is processed, one image of each camera waits.
    counts = {side: int(bench.status(name=f'superpoint_detector: {side}')['received']) for side in ('left', 'right')}
    hold.touch()
    for side in ('left', 'left', 'right'):
        bench.send(jpeg(photo), f'{side}/image/compressed')
        counts[side] += 1
        bench.status(lambda s, side=side: s['received'] == str(counts[side]), f'superpoint_detector: {side}')
    bench.received['left/features'].clear()
    hold.unlink()
    assert bench.wait(lambda: len(bench.received['left/features']) == 2)

    bad = jpeg(photo)
    bad.data = bad.data[: len(bad.data) // 2]
    other = jpeg(photo[:200])
    for number, (message, sentence) in enumerate(((bad, 'cut off'), (other, 'mask: expected')), 1):
        bench.send(message, 'left/image/compressed')
        bench.status(
            lambda s, n=number, sentence=sentence: s['bad'] == str(n) and sentence in s['last error'],
            'superpoint_detector: left',
        )
    assert len(bench.answer(jpeg(photo), 'left/image/compressed')) == len(left)
    values = bench.status(name='superpoint_detector: right')
    assert values['bad'] == '0'
    code, output = bench.stop(signal.SIGTERM)
    assert code == 0, output
    assert 'batch of 2' in output
    assert '/left/image/compressed: the JPEG of 320×240 pixels is cut off' in output
    assert "parameter 'treshold' is not known, did you mean threshold?" in output


def test_networks_for_the_sizes_of_all_cameras_are_kept(start, tiny_model, photo):
    cameras = [f'camera{index}' for index in range(9)]
    bench = start(f'model:={tiny_model}', f'cameras:={cameras}')
    for _ in range(2):
        for index, camera in enumerate(cameras):
            assert len(bench.answer(image_message(photo[:, : 240 + 8 * index].copy(), header()), f'{camera}/image'))
    _, output = bench.stop()
    assert 'compiled again' not in output


def test_while_the_network_is_busy_old_images_are_dropped_and_parameters_can_be_set(start, tiny_model, photo, tmp_path):
    hold = tmp_path / 'hold'
    bench = start(f'model:={tiny_model}', program=HELD.format(path=str(hold)))
    assert len(bench.answer(image_message(photo, header()))) > 50
    received = int(bench.status()['received'])
    bench.received['features'].clear()
    hold.touch()
    sent = [image_message(photo, header()) for _ in range(4)]
    for number, message in enumerate(sent, 1):
        bench.send(message)
        bench.status(lambda s, number=number: s['received'] == str(received + number))
    assert bench.set('max_keypoints', 10).successful
    for name, value, reason in (
        ('threshold', 2.0, 'out of range'),
        ('nms_radius', -1, 'out of range'),
        ('interpolation', 'cubic', "'cubic' is not one of bilinear, bicubic"),
        ('threshold', 'high', 'Wrong parameter type'),
        ('resize', 320, 'resize: cannot change while the node is configured'),
        ('autostart', False, 'read-only'),
    ):
        result = bench.set(name, value)
        assert not result.successful
        assert reason in result.reason
    assert bench.received['features'] == []
    hold.unlink()
    assert bench.wait(lambda: len(bench.received['features']) == 2)
    assert [m.header for m in bench.received['features']] == [sent[0].header, sent[-1].header]
    assert bench.received['features'][1].width == 10
    assert bench.status()['dropped'] == '2'
    code, output = bench.stop(signal.SIGINT, signal.SIGINT, signal.SIGINT)
    assert code == 0, output
    assert 'Traceback' not in output


def test_a_lifecycle_manager_can_retry_after_a_failure(start, tiny_model, photo, tmp_path):
    truncated, other = tmp_path / 'truncated.onnx', tmp_path / 'other.onnx'
    truncated.write_bytes(tiny_model.read_bytes()[:5000])
    other.write_bytes(b'this is no model')
    bench = start('autostart:=false', 'model:=/nowhere/model.onnx')
    assert bench.state() == 'unconfigured'
    status = bench.status()
    assert (status['level'], status['message']) == (DiagnosticStatus.STALE, 'not configured')
    for model, reason in (
        (None, 'model /nowhere/model.onnx: no such file'),
        (truncated, 'truncated.onnx'),
        (other, 'other.onnx'),
        ('superpint', "model 'superpint' is neither one of"),
    ):
        if model:
            assert bench.set('model', str(model)).successful
        assert not bench.change('configure')
        assert bench.state() == 'unconfigured'
        status = bench.status(lambda s: s['level'] == DiagnosticStatus.ERROR)
        assert 'cannot configure' in status['message']
        assert reason in status['message']
    assert bench.set('model', str(tiny_model)).successful
    assert bench.set('mask', ['/nowhere/mask.png']).successful
    assert not bench.change('configure')
    assert bench.set('mask', [str(other)]).successful
    assert not bench.change('configure')
    assert bench.set('mask', []).successful

    assert bench.change('configure')
    assert bench.state() == 'inactive'
    publisher = bench.node.create_publisher(Image, 'image', 10)
    bench.wait(lambda: False, timeout=1)
    assert publisher.get_subscription_count() == 0
    for _ in range(2):
        assert bench.change('activate')
        expected = bench.answer(image_message(photo, header()))
        assert len(expected) > 50
        assert bench.change('deactivate')
        assert bench.wait(lambda: publisher.get_subscription_count() == 0)
        bench.received['features'].clear()
        publisher.publish(image_message(photo, header()))
        bench.wait(lambda: False, timeout=0.5)
        assert bench.received['features'] == []
    assert bench.change('cleanup')
    assert bench.wait(lambda: bench.node.count_publishers('features') == 0)
    assert bench.set('resize', 160).successful
    assert bench.change('configure')
    assert bench.change('activate')
    assert len(bench.answer(image_message(photo, header()))) != len(expected)
    code, output = bench.stop()
    assert code == 0, output
    assert 'Traceback' not in output


def test_a_missing_back_end_names_the_extra_to_install(start, tiny_model):
    program = "import sys; sys.modules['openvino'] = None; from superpoint_ros.ros.detector_node import main; main()"
    bench = start(f'model:={tiny_model}', 'backend:=openvino', 'autostart:=false', program=program)
    assert not bench.change('configure')
    status = bench.status(lambda s: s['level'] == DiagnosticStatus.ERROR)
    assert 'pip install superpoint_ros[cpu]' in status['message']
    assert bench.state() == 'unconfigured'
    assert bench.stop()[0] == 0


def test_a_node_that_cannot_start_itself_exits_with_1(start):
    bench = start('model:=/nowhere/model.onnx')
    output = bench.process.communicate(timeout=30)[0]
    assert bench.process.returncode == 1
    assert 'cannot configure: model /nowhere/model.onnx: no such file' in output
    assert 'Traceback' not in output


def test_a_wrong_initial_value_ends_the_node_with_one_sentence(start):
    wrong = {
        'threshold:=2.0': 'threshold out of range',
        'backend:=cuda': "'cuda' is not one of",
    }
    benches = [start(parameter) for parameter in wrong]
    for bench, reason in zip(benches, wrong.values(), strict=True):
        output = bench.process.communicate(timeout=30)[0]
        assert bench.process.returncode == 1
        assert reason in output
        assert len(output.strip().splitlines()) == 1


def mask_publisher(bench):
    publisher = bench.node.create_publisher(Image, 'mask', 10)
    assert bench.wait(publisher.get_subscription_count), 'the detector does not listen to mask'
    return publisher


def test_no_keypoint_is_inside_a_moving_mask(start, tiny_model, photo, tmp_path):
    file = np.full_like(photo, 255)
    file[:60] = 0
    cv2.imwrite(str(tmp_path / 'file.png'), file)
    bench = start(
        f'model:={tiny_model}', 'mask_topic:=required', 'mask_timeout:=20.0', f"mask:=['{tmp_path}/file.png']"
    )
    masks = mask_publisher(bench)
    for number, left in enumerate(range(0, 240, 40)):
        mask = np.full_like(photo, 255)
        mask[:, left : left + 80] = 0
        image = image_message(photo, header())
        message = image_message(mask, image.header)
        if number % 2:  # the mask after the image
            bench.send(image)
            masks.publish(message)
            assert bench.wait(lambda image=image: image.header in [m.header for m in bench.received['features']])
        else:
            masks.publish(message)
            bench.answer(image)
        features = features_from_message(bench.received['features'][-1])
        x, y = np.rint(features.keypoints).astype(int).T
        assert len(features) > 20
        assert mask[y, x].all()
        assert file[y, x].all()
        assert (x < left).any() or (x >= left + 80).any()
    assert bench.status()['masks missing'] == '0'


@pytest.mark.parametrize('kind', ['optional', 'required'])
def test_an_image_whose_mask_does_not_come_is_counted_and_processed_or_dropped(start, tiny_model, photo, kind):
    bench = start(f'model:={tiny_model}', f'mask_topic:={kind}', 'mask_timeout:=0.05')
    bench.publisher(Image, 'image')
    status = bench.status(lambda s: 'nobody publishes' in s['message'])
    assert status['level'] == DiagnosticStatus.WARN
    masks = mask_publisher(bench)
    if kind == 'optional':
        assert len(bench.answer(image_message(photo, header()))) > 20
    else:
        bench.send(image_message(photo, header()))
    other = header()
    masks.publish(image_message(np.zeros_like(photo), other))
    status = bench.status(lambda s: int(s['masks missing']) and 'has the stamp of an image' in s['message'])
    assert status['level'] == DiagnosticStatus.WARN
    assert bool(bench.received['features']) == (kind == 'optional')

    image = image_message(photo, header())
    masks.publish(image_message(np.zeros_like(photo), image.header))
    assert len(bench.answer(image)) == 0
    assert bench.status(lambda s: s['published'] != '0')['level'] == DiagnosticStatus.OK


def test_masks_that_come_too_late_are_reported(start, tiny_model, photo):
    bench = start(f'model:={tiny_model}', 'mask_topic:=required', 'mask_timeout:=0.05')
    masks = mask_publisher(bench)
    image = image_message(photo, header())
    bench.send(image)
    bench.status(lambda s: s['masks missing'] == '1')
    bench.send(image_message(photo, header()))  # otherwise the silence of the images may be reported instead
    masks.publish(image_message(photo, image.header))
    status = bench.status(lambda s: s['masks received'] == '1')
    assert status['message'] == 'the masks on mask come too late: raise mask_timeout (0.05 s); at most 30 images wait'
    assert status['level'] == DiagnosticStatus.WARN


def test_a_bad_mask_gets_one_sentence_and_its_image_is_not_published(start, tiny_model, photo):
    bench = start(f'model:={tiny_model}', 'mask_topic:=required', 'mask_timeout:=20.0')
    masks = mask_publisher(bench)
    good = image_message(photo, header())
    masks.publish(image_message(np.full_like(photo, 255), good.header))
    bench.answer(good)
    bench.received['features'].clear()
    color = encoded(np.zeros((240, 320, 3), np.uint8), 'bgr8')
    small = image_message(np.zeros((100, 100), np.uint8), header())
    short = image_message(photo, header())
    short.data = short.data[:10]
    for number, (mask, sentence) in enumerate(((color, 'mono8'), (small, '(240, 320)'), (short, '10 bytes')), 1):
        masks.publish(mask)
        bench.send(image_message(photo, mask.header))
        bench.status(
            lambda s, n=number, t=sentence: s['bad'] == str(n) and 'mask: ' in s['last error'] and t in s['last error']
        )
    assert not bench.received['features']
