import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import rclpy

from superpoint_ros.ros.detector_config import DetectorConfig
from superpoint_ros.ros.detector_topics import DetectorTopics
from superpoint_ros.ros.feature_stream import FeatureStream
from superpoint_ros.ros.match_output import MatchOutput
from superpoint_ros.ros.matcher_config import MatcherConfig
from superpoint_ros.ros.topic_names import check_cameras, follow


def test_relative_namespaces_are_accepted():
    check_cameras('cameras', ['', 'left', 'robot/left', '_2'])


@pytest.mark.parametrize('name', ['/left', '~/left', 'left/', 'a//b', '2nd', 'a b', '{node}', 'links:rechts', 'é'])
def test_other_names_are_refused_with_the_name_of_the_parameter(name):
    with pytest.raises(ValueError, match='cameras: expected relative namespaces such as left') as error:
        check_cameras('cameras', ['left', name])
    assert repr(name) in str(error.value)


def test_equal_names_are_refused():
    with pytest.raises(ValueError, match='cameras: expected different names, got left, left'):
        check_cameras('cameras', ['left', 'left'])


@pytest.fixture
def make(context):
    """Makes nodes with remapping rules."""
    nodes = []

    def maker(*rules):
        arguments = ['--ros-args', *(word for rule in rules for word in ('-r', rule))]
        nodes.append(rclpy.create_node('remapped', context=context, cli_args=arguments, namespace='robot'))
        return nodes[-1]

    yield maker
    for node in nodes:
        node.destroy_node()


@pytest.mark.parametrize(
    ('rules', 'name'),
    [
        ([], '/robot/features/info'),
        (['features:=left'], '/robot/left/info'),
        (['features:=/left'], '/left/info'),
        (['features/info:=about'], '/robot/about'),
        (['features:=left', 'features/info:=about'], '/robot/about'),
        (['__ns:=/other', 'features:=left'], '/other/left/info'),
    ],
)
def test_a_topic_follows_the_one_above_it_unless_it_is_remapped_itself(make, rules, name):
    node = make(*rules)
    assert node.resolve_topic_name(follow(node, 'features', 'info')) == name


def test_all_outputs_of_a_detector_follow_its_features(make):
    node = make('features:=left', 'front/features:=front_left')
    for camera, topic in (('', '/robot/left'), ('front', '/robot/front_left')):
        DetectorTopics(node, camera, None, DetectorConfig(), None)
        names = {publisher.topic_name for publisher in node.publishers}
        assert {topic, f'{topic}/info', f'{topic}/image'} <= names
        assert not [name for name in names if 'features' in name]


def test_the_matcher_reads_and_publishes_what_belongs_to_remapped_topics(make):
    node = make('features:=left', 'matches:=found', 'image:=camera')
    config = MatcherConfig(image_transport='compressed')
    stream = FeatureStream(node, '', config)
    MatchOutput(node, 'matches', (stream, stream), config)
    assert {'/robot/found', '/robot/found/first', '/robot/found/image'} <= {p.topic_name for p in node.publishers}
    stream.subscribe(print)
    assert '/robot/left/info' in {s.topic_name for s in node.subscriptions}
    stream.unsubscribe()
