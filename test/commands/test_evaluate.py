import json
import shutil

import cv2
import numpy as np
import pytest

from superpoint_ros.commands import evaluate
from superpoint_ros.commands.benchmark import benchmark
from superpoint_ros.commands.quantize import quantize
from superpoint_ros.evaluation import datasets, tracking
from superpoint_ros.evaluation.methods import ModelsConfig, matchers, methods
from superpoint_ros.evaluation.report import Report


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / 'photographs'
    folder.mkdir()
    for name in 'ab':
        picture = np.full((240, 320), 128, np.uint8)
        for _ in range(120):
            x, y, w, h = (int(v) for v in rng.integers([0, 0, 6, 6], [310, 230, 50, 50]))
            cv2.rectangle(picture, (x, y), (x + w, y + h), int(rng.integers(256)), -1)
        cv2.imwrite(str(folder / f'{name}.png'), picture)
    return folder


def test_pairs_write_a_report_with_model_and_baselines_side_by_side(photographs, tiny_model, make_matcher, tmp_path):
    output, matcher = tmp_path / 'out', str(make_matcher(descriptor_size=32))
    markdown = evaluate.pairs(
        photographs, output, matcher=('nearest', matcher), models=ModelsConfig((str(tiny_model),), 'openvino')
    )
    assert (output / 'pairs.md').read_text() == markdown
    assert 'images 640×480' in markdown  # the protocol stands beside the figures
    data = json.loads((output / 'pairs.json').read_text())
    described = [row for row in data['summary'] if row['stage'] == 'description']
    assert [row['method'] for row in described][:4] == ['tiny', 'tiny, matcher', 'SIFT', 'RootSIFT']
    assert 'matcher was trained for descriptors of size 32, got 128' in markdown  # SIFT's are left to nearest neighbors
    detected = [row['method'] for row in data['summary'] if row['stage'] == 'detection, NMS 8 px']
    assert detected == ['tiny', 'FAST', 'Harris', 'Shi-Tomasi', 'random']
    assert 'sha256' in data['methods']['tiny']
    by_method = {row['method']: row for row in described}
    assert by_method['SIFT']['accuracy_5'] > 0
    assert by_method['tiny']['keypoints'] > 0
    assert len([row for row in data['views'] if row['method'] == 'tiny']) == 2
    assert {row['method'] for row in data['views']} >= {'tiny', 'tiny, matcher', 'ORB'}
    assert '| method | photographs | 0° | 15° |' in markdown
    for name in ('views', 'accuracy', 'precision_recall', 'matches/a.png', 'matches/b.png'):
        assert cv2.imread(str(output / f'pairs_{name}.png')) is not None


def test_photographs_of_one_stem_are_drawn_apart(photographs, tiny_model, tmp_path):
    (photographs / 'b.png').rename(photographs / 'a.bmp')
    evaluate.pairs(photographs, tmp_path / 'out', models=ModelsConfig((str(tiny_model),), 'openvino'), baselines=False)
    assert {path.name for path in (tmp_path / 'out/pairs_matches').iterdir()} == {'a.bmp.png', 'a.png.png'}


def test_a_broken_photograph_fails_the_command_but_not_the_others(photographs, tmp_path):
    (photographs / 'c.png').write_bytes(b'broken')
    with pytest.raises(ValueError, match=r'c\.png'):
        evaluate.pairs(photographs, tmp_path / 'out', models=ModelsConfig(()))
    assert 'c.png' in (tmp_path / 'out/pairs.md').read_text()
    data = json.loads((tmp_path / 'out/pairs.json').read_text())
    assert {pair['pair'] for pair in data['pairs']} == {'a.png', 'b.png'}
    assert len(data['failed']) == 1


def test_homography_reports_illumination_and_viewpoint_apart(photographs, tmp_path):
    image = cv2.imread(str(photographs / 'a.png'), cv2.IMREAD_GRAYSCALE)
    for scene, other, matrix in (
        ('i_dark', image // 2, np.eye(3)),
        ('v_up', np.roll(image, 12, axis=0), [[1, 0, 0], [0, 1, 12], [0, 0, 1]]),
    ):
        folder = tmp_path / 'hpatches' / scene
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / '1.png'), image)
        cv2.imwrite(str(folder / '2.png'), other)
        np.savetxt(folder / 'H_1_2', matrix)
    markdown = evaluate.homography(tmp_path / 'hpatches', tmp_path / 'out', preset='rpautrat', models=ModelsConfig(()))
    assert 'rpautrat' in markdown
    data = json.loads((tmp_path / 'out/homography.json').read_text())
    sift = {row['split']: row for row in data['summary'] if (row['stage'], row['method']) == ('description', 'SIFT')}
    assert set(sift) == {'all', 'illumination', 'viewpoint'}
    assert sift['viewpoint']['accuracy_1'] == sift['illumination']['accuracy_1'] == 1.0
    assert sift['illumination']['repeatability'] > 0.5


def test_shapes_and_sequence_write_their_reports(tiny_model, photographs, tmp_path):
    evaluate.shapes(tmp_path, count=1, models=ModelsConfig((str(tiny_model),), 'openvino'))
    assert {'tiny', 'FAST', 'Harris', 'Shi-Tomasi', 'random'} == set(
        json.loads((tmp_path / 'shapes.json').read_text())['methods']
    )
    assert cv2.imread(str(tmp_path / 'shapes_precision_recall.png')) is not None
    evaluate.sequence(photographs, tmp_path, models=ModelsConfig((str(tiny_model),), 'openvino'))
    summary = json.loads((tmp_path / 'sequence.json').read_text())['summary']
    assert [row['method'] for row in summary][:3] == ['tiny', 'SIFT', 'RootSIFT']


def test_poses_report_models_and_baselines_with_their_ratio_tests(tiny_model, photographs, tmp_path):
    camera, pose = [300, 0, 160, 0, 300, 120, 0, 0, 1], [1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    numbers = ' '.join(map(str, [*camera, *camera, *pose]))
    (tmp_path / 'pairs.txt').write_text(f'a.png b.png 0 1 {numbers}\na.png c.png 0 0 {numbers}\n')
    with pytest.raises(ValueError, match=r'c\.png: no such file'):
        evaluate.poses(
            tmp_path / 'pairs.txt', photographs, tmp_path, models=ModelsConfig((str(tiny_model),), 'openvino')
        )
    data = json.loads((tmp_path / 'poses.json').read_text())
    matchers = {'nearest', 'ratio 0.95', 'ratio 0.9', 'ratio 0.85', 'oracle'}
    assert {(row['method'], row['matcher']) for row in data['summary']} >= {
        (method, matcher) for method in ('tiny', 'RootSIFT', 'ORB') for matcher in matchers
    }
    assert 'c.png' in (tmp_path / 'poses.md').read_text()
    assert cv2.imread(str(tmp_path / 'poses.png')) is not None


def test_count_takes_pairs_evenly():
    loaders = list(range(10))
    assert datasets.spread(loaders, 3) == [0, 4, 9]
    assert datasets.spread(loaders, 0) == datasets.spread(loaders, 99) == loaders


def test_nothing_to_measure_and_two_of_one_name_are_errors(tiny_model):
    with pytest.raises(ValueError, match='nothing to measure'):
        methods(ModelsConfig(()), baselines=False)
    with pytest.raises(ValueError, match='tiny'):
        methods(ModelsConfig((str(tiny_model), str(tiny_model)), 'openvino'))


def test_tracking_beside_lucas_kanade(photographs, tiny_model, tmp_path):
    (photographs / 'c.png').write_bytes(b'broken')
    output = tmp_path / 'out'
    with pytest.raises(ValueError, match=r'c\.png'):
        evaluate.tracking(
            photographs, photographs, output, count=2, models=ModelsConfig((str(tiny_model),), 'openvino')
        )
    data = json.loads((output / 'tracking.json').read_text())
    rows = data['summary']
    assert {row['variant'] for row in rows} == {
        'camera in front of photographs, 30 Hz',
        'camera in front of photographs, 6 Hz',
        'photographs',
    }
    assert {row['method'] for row in rows} >= {'tiny, Lucas–Kanade', 'tiny, similarity ≥ 0.7'}
    slow = next(row for row in rows if '30 Hz' in row['variant'] and row['method'] == 'tiny, Lucas–Kanade')
    assert slow['right'] > 0.8
    assert (output / 'tracking.md').read_text().count('similarity ≥') == 18
    assert cv2.imread(str(output / 'tracking.png')) is not None


def test_sequences_and_tracks_need_two_frames_of_one_size(photographs, tiny_model, tmp_path):
    (photographs / 'b.png').unlink()
    with pytest.raises(ValueError, match='photographs, 1 consecutive frames: expected at least 2 frames'):
        evaluate.sequence(photographs, tmp_path, models=ModelsConfig(()))
    models = ModelsConfig((str(tiny_model),), 'openvino')
    with pytest.raises(ValueError, match='photographs: expected at least 2 frames, all of one size'):
        evaluate.tracking(photographs, photographs, tmp_path, models=models)
    (photographs / 'a.png').write_bytes(b'broken')
    with pytest.raises(ValueError, match=r'no photograph can be read:\n.*a\.png: not an image'):
        evaluate.tracking(photographs, models=models)


def test_counts_that_measure_nothing_are_refused(photographs, tmp_path):
    with pytest.raises(ValueError, match='count: 0 is out of range, expected at least 1'):
        evaluate.shapes(tmp_path, count=0, models=ModelsConfig(()))
    with pytest.raises(ValueError, match='draws: 0 is out of range, expected at least 1'):
        quantize('superpoint_lite', photographs, photographs, tmp_path / 'q.onnx', draws=0)
    with pytest.raises(ValueError, match='models, precisions: expected at least one of each'):
        benchmark(precisions=())


def test_matchers_of_two_training_runs_have_two_names(make_matcher, tmp_path):
    paths = [tmp_path / run / 'weights.onnx' for run in ('first', 'second')]
    for path in paths:
        path.parent.mkdir()
        shutil.copy(make_matcher(descriptor_size=32).with_suffix('.onnx'), path)
    assert list(matchers(['nearest', *map(str, paths)], ModelsConfig())) == ['nearest', 'first', 'second']
    (tmp_path / 'other/first').mkdir(parents=True)
    shutil.copy(paths[0], tmp_path / 'other/first/weights.onnx')
    with pytest.raises(ValueError, match='matcher: first is the name of more than one'):
        matchers([str(paths[0]), str(tmp_path / 'other/first/weights.onnx')], ModelsConfig())


def test_the_smallest_probability_is_that_of_the_learned_matcher(make_matcher):
    path = str(make_matcher(descriptor_size=32).with_suffix('.onnx'))
    (matcher,) = matchers([path], ModelsConfig(), 0.7).values()
    assert matcher.min_similarity == 0.7
    with pytest.raises(ValueError, match=r'min_similarity: 2\.0 is out of range'):
        matchers([path], ModelsConfig(), 2.0)


def test_the_plot_has_a_curve_of_lucas_kanade_for_the_keypoints_of_each_model(
    photographs, tiny_model, tmp_path, monkeypatch
):
    other, panels = tmp_path / 'other.onnx', []
    shutil.copy(tiny_model, other)
    monkeypatch.setattr(tracking, 'SIMILARITIES', ())
    monkeypatch.setattr(Report, 'plot', lambda _report, _name, _y, drawn: panels.extend(drawn))
    evaluate.tracking(photographs, None, tmp_path, 1, models=ModelsConfig((str(tiny_model), str(other)), 'openvino'))
    trackers = {label.partition(':')[0] for label in panels[0].curves}
    assert trackers == {'tiny', 'other', 'tiny, Lucas–Kanade', 'other, Lucas–Kanade'}
