"""README and docs agree with the code."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]


def code(language):
    return re.findall(rf'^```{language}\n(.*?)^```', (ROOT / 'README.md').read_text(encoding='utf-8'), re.M | re.S)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r'\]\((?!https?:)([^)#]+)', page.read_text(encoding='utf-8'))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    from superpoint_ros.cli import COMMANDS

    named = set(re.findall(r'(?:^    |`)superpoint ([a-z]+)', page.read_text(encoding='utf-8'), re.M))
    assert named <= set(COMMANDS)


def test_the_way_of_an_image_names_files_that_exist():
    text = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
    section = text.partition('## The path of an image')[2].partition('\n## ')[0]
    assert re.findall(r'^(\d)\. `\S+\.py`', section, re.M) == list('123456789')
    assert [
        path for path in re.findall(r'`(\S+\.py)`', section) if not (ROOT / 'superpoint_ros' / path).is_file()
    ] == []


def test_the_example_for_images_runs(tmp_path, monkeypatch):
    pytest.importorskip('openvino', reason='needs OpenVINO')
    noise = np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8)
    texture = cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / 'first.png'), texture[:, :-5])
    cv2.imwrite(str(tmp_path / 'second.png'), texture[:, 5:])
    monkeypatch.chdir(tmp_path)
    names = {}
    (example,) = [block for block in code('python') if 'Extractor(' in block]
    exec(example, names)
    moved = names['points1'] - names['points0']
    assert len(moved) > 20
    assert np.median(moved, axis=0) == pytest.approx([-5, 0], abs=0.5)
