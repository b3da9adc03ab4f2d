"""Export of weights to graphs."""

import numpy as np
import onnx
import openvino
import pytest
import torch

from superpoint_ros.commands.export import export as command
from superpoint_ros.models import checksum
from superpoint_ros.networks import checkpoint
from superpoint_ros.networks.superpoint import SuperPoint, SuperPointConfig
from superpoint_ros.runtimes import export

from .conftest import lively


@pytest.mark.parametrize(('norm', 'stride'), [('before_relu', 1), ('before_relu', 2), ('after_relu', 1), ('none', 1)])
@pytest.mark.parametrize('depth', [16, 0])
def test_a_graph_computes_what_the_network_computes_at_any_size(norm, stride, depth, tmp_path):
    network = lively(
        SuperPointConfig((8, 8, 12, 16), head_channels=16, descriptor_size=depth, norm=norm, stem_stride=stride)
    )
    checkpoint.save(tmp_path / 'model.safetensors', network)
    export.export(tmp_path / 'model.safetensors', tmp_path / 'model.onnx')
    graph = openvino.compile_model(
        tmp_path / 'model.onnx', 'CPU', {openvino.properties.hint.inference_precision: openvino.Type.f32}
    )
    for shape in ((1, 1, 32, 48), (3, 1, 8, 16)):
        image = torch.rand(shape)
        with torch.no_grad():
            expected = network(image)
        found = {output.any_name: value for output, value in graph(image.numpy()).to_dict().items()}
        assert found.keys() == expected.keys() == ({'logits', 'descriptors'} if depth else {'logits'})
        for name, wanted in expected.items():
            np.testing.assert_allclose(found[name], wanted, atol=2e-4 * float(wanted.abs().max()))


def test_the_graph_has_opset_and_metadata(model):
    graph = onnx.load(model.graph)
    onnx.checker.check_model(graph, full_check=True)
    assert [(domain.domain, domain.version) for domain in graph.opset_import] == [('', 17)]
    said = {entry.key: entry.value for entry in graph.metadata_props}
    assert said['model'] == 'superpoint'
    assert '"norm": "none"' in said['config']
    assert said['checksum'] == checksum(model.weights)
    assert 'BatchNormalization' not in {node.op_type for node in graph.graph.node}


def test_a_foreign_checkpoint_becomes_a_graph(tmp_path):
    ours = SuperPoint(SuperPointConfig((8, 8, 8, 8), head_channels=8, descriptor_size=8, norm='none')).state_dict()
    names = ['1a', '1b', '2a', '2b', '3a', '3b', '4a', '4b', 'Pa', 'Pb', 'Da', 'Db']
    foreign = [f'conv{name}.{kind}' for name in names for kind in ('weight', 'bias')]
    torch.save(dict(zip(foreign, ours.values(), strict=True)), tmp_path / 'foreign.pth')
    export.export(tmp_path / 'foreign.pth', tmp_path / 'foreign.onnx')
    assert (tmp_path / 'foreign.onnx').stat().st_size > 1000


def test_a_graph_that_differs_from_the_network_is_not_written(model, tmp_path, monkeypatch):
    monkeypatch.setattr(export.onnx.helper, 'set_model_props', wrong_weights)
    with pytest.raises(RuntimeError, match='differs from the network'):
        export.export(model.weights, tmp_path / 'wrong.onnx')
    assert list(tmp_path.iterdir()) == []


def wrong_weights(graph, _):
    """Replaces the function that adds metadata, and overwrites the first weights with zeros."""
    graph.graph.initializer[0].raw_data = bytes(len(graph.graph.initializer[0].raw_data))


@pytest.mark.parametrize('kind', ['onnx', 'onnx-fp16'])
def test_a_name_that_no_command_could_read_is_refused_before_the_work(kind, model, tmp_path):
    with pytest.raises(ValueError, match=r'out\.bin: expected a name that ends in \.onnx'):
        command(str(model.weights), tmp_path / 'out.bin', kind)
    assert not any(tmp_path.iterdir())


def test_broken_weights_are_refused(tmp_path):
    (tmp_path / 'broken.safetensors').write_bytes(b'hello')
    with pytest.raises(ValueError, match=r'broken\.safetensors'):
        export.export(tmp_path / 'broken.safetensors', tmp_path / 'broken.onnx')
    assert not (tmp_path / 'broken.onnx').exists()
