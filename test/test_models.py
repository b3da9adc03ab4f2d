"""Names and paths of models."""

import hashlib

import pytest

from superpoint_ros.models import DEFAULT, MATCHERS, SHIPPED, checksum, resolve
from superpoint_ros.networks import checkpoint
from superpoint_ros.runtimes import onnx_graph


def test_the_other_file_of_a_model_is_found(tmp_path):
    weights, graph = tmp_path / 'mine.safetensors', tmp_path / 'mine.onnx'
    weights.touch()
    model = resolve(str(weights))
    assert (model.name, model.weights, model.graph) == ('mine', weights, None)
    with pytest.raises(FileNotFoundError, match=r'model mine: .*superpoint export .*mine\.safetensors'):
        model.file('graph')
    graph.touch()
    for path in (weights, graph):
        model = resolve(str(path))
        assert (model.file('weights'), model.file('graph')) == (weights, graph)


def test_the_default_model_is_shipped_with_every_file():
    model = resolve(DEFAULT)
    assert model.file('weights').is_file()
    assert model.file('graph').is_file()
    assert model.quantized
    assert model.quantized.is_file()


@pytest.mark.parametrize(('file', 'name'), [('weights.onnx', 'third'), ('weights_int8.onnx', 'third_int8')])
def test_the_results_of_two_runs_have_the_names_of_their_folders(tmp_path, monkeypatch, file, name):
    (tmp_path / 'third').mkdir()
    (tmp_path / 'third' / file).touch()
    assert resolve(str(tmp_path / 'third' / file)).name == name
    monkeypatch.chdir(tmp_path / 'third')
    assert resolve(file).name == name


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'mine.onnx').touch()
    assert resolve('~/mine.onnx').graph == tmp_path / 'mine.onnx'


def test_unknown_models_are_refused(tmp_path):
    with pytest.raises(ValueError, match=f"'superglue' is neither one of {', '.join(SHIPPED)} nor the path of"):
        resolve('superglue')
    with pytest.raises(FileNotFoundError, match='no such file'):
        resolve(str(tmp_path / 'none.onnx'))
    (tmp_path / 'folder.onnx').mkdir()
    with pytest.raises(FileNotFoundError, match='no such file'):
        resolve(str(tmp_path / 'folder.onnx'))


@pytest.mark.parametrize('name', SHIPPED)
def test_the_files_of_a_shipped_model_belong_together(name):
    model = resolve(name)
    said = checksum(model.file('weights'))
    for graph in filter(None, (model.file('graph'), model.quantized)):
        assert onnx_graph.read(graph)[1].checksum_of_weights == said, graph.name
    network = checkpoint.load(model.file('weights'))
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())


@pytest.mark.parametrize('name', MATCHERS)
def test_a_shipped_matcher_is_for_the_features_of_a_shipped_model(name):
    model = resolve(name, MATCHERS)
    graph = onnx_graph.read(model.file('graph'))[1]
    assert graph.checksum_of_weights == checksum(model.file('weights'))
    config = checkpoint.load_matcher(model.file('weights')).config
    assert config.extractor_checksum == checksum(resolve(config.extractor).file('weights'))
    assert config.extractor == DEFAULT or name != MATCHERS[0]


def test_the_checksum_is_sha256(tmp_path):
    (tmp_path / 'file').write_bytes(b'superpoint')
    assert checksum(tmp_path / 'file') == hashlib.sha256(b'superpoint').hexdigest()
