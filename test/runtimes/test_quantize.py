import cv2
import numpy as np
import onnx
import pytest

from superpoint_ros.models import resolve
from superpoint_ros.runtimes import RuntimeConfig, load, onnx_graph
from superpoint_ros.runtimes.onnx_graph import precision_of

pytest.importorskip('nncf', reason='needs nncf to quantize')
pytest.importorskip('openvino', reason='needs OpenVINO to run a graph')

from superpoint_ros.commands.quantize import quantize as command
from superpoint_ros.evaluation import quantization
from superpoint_ros.runtimes.quantize import convolutions, quantize


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    """A folder of pictures with rectangles."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp('photographs')
    for name in 'abc':
        picture = np.full((96, 128), 128, np.uint8)
        for _ in range(60):
            x, y, w, h = (int(v) for v in rng.integers([0, 0, 4, 4], [124, 92, 30, 30]))
            cv2.rectangle(picture, (x, y), (x + w, y + h), int(rng.integers(256)), -1)
        cv2.imwrite(str(folder / f'{name}.png'), picture)
    return folder


@pytest.fixture(scope='module')
def graph(model, photographs, tmp_path_factory):
    """A copy of the small model's graph with its quantized twin beside it."""
    path = tmp_path_factory.mktemp('quantized') / 'small.onnx'
    path.write_bytes(model.graph.read_bytes())
    quantize(path, path.with_name('small_int8.onnx'), sorted(photographs.iterdir()))
    return path


def infer(path, precision, image):
    runtime = load(resolve(str(path)), RuntimeConfig(backend='openvino', precision=precision))
    return runtime, {name: array.copy() for name, array in next(runtime([image])).items()}


def test_all_convolutions_run_in_8_bits_with_nearly_the_same_result(graph, photographs):
    quantized_graph = onnx.load(graph.with_name('small_int8.onnx'))
    assert precision_of(quantized_graph) == 'int8'
    made_by = {output: node for node in quantized_graph.graph.node for output in node.output}
    for node in quantized_graph.graph.node:
        if node.op_type == 'Conv':
            image, weights = (made_by[name] for name in node.input[:2])
            if image.op_type == 'MaxPool':  # the same before and after
                image = made_by[image.input[0]]
            assert (image.op_type, weights.op_type) == ('DequantizeLinear', 'DequantizeLinear')
    image = cv2.imread(str(photographs / 'a.png'), cv2.IMREAD_GRAYSCALE)
    exact, outputs = infer(graph, 'fp32', image)
    rough, rough_outputs = infer(graph, 'int8', image)
    assert (exact.precision, rough.precision) == ('fp32', 'int8')
    assert exact.checksum == rough.checksum  # features of both can be matched
    for name, values in outputs.items():
        difference = np.abs(rough_outputs[name] - values).max() / np.abs(values).max()
        assert 0 < difference < 0.2
        assert np.corrcoef(rough_outputs[name].ravel(), values.ravel())[0, 1] > 0.99


def test_kept_convolutions_are_not_quantized(graph, photographs, tmp_path):
    names = convolutions(onnx.load(graph))
    quantize(graph, tmp_path / 'kept.onnx', sorted(photographs.iterdir()), [names[0], names[-1]])
    kept = onnx.load(tmp_path / 'kept.onnx')
    weights = {initializer.name: initializer.data_type for initializer in kept.graph.initializer}
    exact = [node.name for node in kept.graph.node if node.op_type == 'Conv' and node.input[1] in weights]
    assert exact == [names[0], names[-1]]


def test_auto_runs_the_quantized_graph_of_the_same_weights(graph, photographs, tmp_path, caplog):
    image = cv2.imread(str(photographs / 'a.png'), cv2.IMREAD_GRAYSCALE)
    assert infer(graph, 'auto', image)[0].precision == 'int8'
    assert infer(graph.with_name('small_int8.onnx'), 'auto', image)[0].precision == 'int8'
    copy, twin = tmp_path / 'small.onnx', tmp_path / 'small_int8.onnx'
    twin.write_bytes(graph.with_name('small_int8.onnx').read_bytes())
    other = onnx.load(graph)
    next(entry for entry in other.metadata_props if entry.key == 'checksum').value = 'f' * 64
    onnx.save(other, copy)
    assert infer(copy, 'auto', image)[0].precision != 'int8'
    assert 'other weights' in caplog.text
    with pytest.raises(ValueError, match='other weights'):
        infer(copy, 'int8', image)
    twin.unlink()
    with pytest.raises(FileNotFoundError, match='superpoint quantize'):
        infer(copy, 'int8', image)


def test_a_quantized_graph_runs_in_no_other_precision(graph, photographs):
    image = cv2.imread(str(photographs / 'a.png'), cv2.IMREAD_GRAYSCALE)
    assert infer(graph.with_name('small_int8.onnx'), 'int8', image)[0].precision == 'int8'
    with pytest.raises(ValueError, match='precision fp32: the graph is quantized to int8'):
        infer(graph.with_name('small_int8.onnx'), 'fp32', image)


def test_torch_refuses_int8(model):
    with pytest.raises(ValueError, match='int8'):
        load(model, RuntimeConfig(backend='torch', device='cpu', precision='int8'))


def test_graphs_that_cannot_be_quantized_are_refused(graph, photographs, tmp_path):
    images = sorted(photographs.iterdir())
    with pytest.raises(ValueError, match='expected a graph in fp32 to quantize, found int8'):
        quantize(graph.with_name('small_int8.onnx'), tmp_path / 'x.onnx', images)
    onnx_graph.export_half(graph, tmp_path / 'half.onnx')
    with pytest.raises(ValueError, match='expected a graph in fp32 to quantize, found fp16'):
        command(str(tmp_path / 'half.onnx'), photographs, photographs, tmp_path / 'x.onnx')
    with pytest.raises(ValueError, match='no convolution nonsense'):
        quantize(graph, tmp_path / 'x.onnx', images, ['nonsense'])
    with pytest.raises(ValueError, match='none'):
        quantize(graph, tmp_path / 'x.onnx', [])
    (tmp_path / 'text.png').write_text('text')
    with pytest.raises(ValueError, match=r'text\.png'):
        quantize(graph, tmp_path / 'x.onnx', [tmp_path / 'text.png'])
    assert not (tmp_path / 'x.onnx').exists()


def test_limits_of_the_loss_of_accuracy():
    exact = {'accuracy_3': 0.70, 'repeatability': 0.50}
    assert quantization.good_enough(exact, {'accuracy_3': 0.69, 'repeatability': 0.49})
    assert not quantization.good_enough(exact, {'accuracy_3': 0.68, 'repeatability': 0.50})
    assert not quantization.good_enough(exact, {'accuracy_3': 0.70, 'repeatability': 0.48})
    assert quantization.good_enough({'repeatability': 0.5}, {'repeatability': 0.5})  # a detector alone


def test_the_command_keeps_layers_until_the_accuracy_suffices(graph, photographs, tmp_path, monkeypatch):
    losses = iter([0.0, 0.05, 0.0])
    figures = {'accuracy_3': 0.7, 'repeatability': 0.5}
    seen = []

    def measured(path, _precision, _loaders):
        seen.append(path)
        return {**figures, 'accuracy_3': figures['accuracy_3'] - next(losses)}

    monkeypatch.setattr(quantization, '_figures', measured)
    output = tmp_path / 'out.onnx'
    told = command(str(graph), photographs, photographs, output, calibration=2)
    assert 'last convolution' in told
    written = onnx.load(output)
    weights = {initializer.name for initializer in written.graph.initializer}
    last = [node for node in written.graph.node if set(node.output) & {'logits', 'descriptors'}]
    assert len(last) == 2
    assert all(node.input[1] in weights for node in last)
    losses = iter([0.0, 0.05, 0.05, 0.05])
    with pytest.raises(RuntimeError, match='nothing was written'):
        command(str(graph), photographs, photographs, tmp_path / 'none.onnx', calibration=2)
    assert not (tmp_path / 'none.onnx').exists()


def test_a_name_that_no_command_could_read_is_refused_before_the_work(graph, photographs, tmp_path):
    with pytest.raises(ValueError, match=r'out\.bin: expected a name that ends in \.onnx'):
        command(str(graph), photographs, photographs, tmp_path / 'out.bin')
    assert not (tmp_path / 'out.bin').exists()


def test_the_command_compares_with_fp32_in_the_same_run(graph, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(quantization, 'ACCURACY_LOSS', 1.0)
    monkeypatch.setattr(quantization, 'REPEATABILITY_LOSS', 1.0)
    told = command(str(graph), photographs, photographs, tmp_path / 'out.onnx', calibration=2, count=2, draws=2)
    assert '| fp32 |' in told
    assert '| int8 |' in told
    assert '4 pairs' in told
    assert (tmp_path / 'out.onnx').is_file()
