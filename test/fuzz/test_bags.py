import pytest

pytest.importorskip('openvino', reason='needs OpenVINO to run a model')

from test.fuzz import bags


def test_mutated_bags_are_processed_or_refused():
    summary = bags.run(seconds=60, seed=0, most=25)
    assert not summary.unexpected, summary
    assert summary.processed
    assert summary.refused
