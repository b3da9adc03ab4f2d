"""The configurations of the viewers name topics of the nodes, and have the keys and values that the viewers read."""

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
TOPICS = dict(
    re.findall(
        r'^\| `([\w/]+)` (?:in|out)[^|]*\| ([\w/]+) \|', (ROOT / 'docs/topics-and-parameters.md').read_text(), re.M
    )
)
"""Topics with their types, as documented."""

# Lichtblick, August 2026: LayoutData, ImageModeConfig and DiagnosticSummaryConfig in its source.
LAYOUT = {'configById', 'layout', 'globalVariables', 'playbackConfig', 'userNodes', 'version'}
IMAGE_MODE = {'imageTopic', 'calibrationTopic', 'annotations', 'synchronize', 'rotation'}
DIAGNOSTICS = {'minLevel', 'pinnedIds', 'topicToRender', 'hardwareIdFilter', 'sortByLevel', 'secondsUntilStale'}

# rviz2: QosProfileProperty in its source.
QOS = {
    'History Policy': {'System Default', 'Keep Last', 'Keep All'},
    'Reliability Policy': {'System Default', 'Reliable', 'Best Effort'},
    'Durability Policy': {'System Default', 'Transient Local', 'Volatile'},
}


def panels(node):
    """Panels of a Foxglove layout: a name, or a tree of halves."""
    return [node] if isinstance(node, str) else [*panels(node['first']), *panels(node['second'])]


def test_the_layout_of_foxglove_shows_image_annotations_and_diagnostics():
    layout = json.loads((ROOT / 'config/foxglove.json').read_text())
    assert set(layout) <= LAYOUT
    assert sorted(panels(layout['layout'])) == sorted(layout['configById'])
    kinds = {name.partition('!')[0]: config for name, config in layout['configById'].items()}
    assert set(kinds) == {'Image', 'DiagnosticSummary'}
    assert set(kinds['Image']) == {'imageMode'}
    mode = kinds['Image']['imageMode']
    assert set(mode) <= IMAGE_MODE
    assert TOPICS[mode['imageTopic'].strip('/')] == 'sensor_msgs/Image'
    assert {topic.strip('/') for topic in mode['annotations']} == {'features/markers', 'tracks/markers'}
    for topic, settings in mode['annotations'].items():
        assert TOPICS[topic.strip('/')] == 'visualization_msgs/ImageMarker'
        assert settings == {'visible': True}
    assert set(kinds['DiagnosticSummary']) <= DIAGNOSTICS
    assert kinds['DiagnosticSummary']['topicToRender'] == '/diagnostics'


def test_the_configuration_of_rviz2_shows_images_of_the_nodes():
    manager = yaml.safe_load((ROOT / 'config/superpoint.rviz').read_text())['Visualization Manager']
    topics = [display['Topic']['Value'].strip('/') for display in manager['Displays']]
    assert topics == ['image', 'features/image', 'matches/image']
    for display, topic in zip(manager['Displays'], topics, strict=True):
        assert TOPICS[topic] == 'sensor_msgs/Image'
        assert display['Class'] == 'rviz_default_plugins/Image'
        assert display['Enabled']
        assert set(display['Topic']) == {'Value', 'Depth', *QOS}
        for policy, values in QOS.items():
            assert display['Topic'][policy] in values
