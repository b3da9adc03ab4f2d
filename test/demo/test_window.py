import cv2
import numpy as np
import pytest

from superpoint_ros.demo.window import open_window, show


@pytest.fixture
def no_display(monkeypatch):
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr('sys.platform', 'linux')


def test_without_a_display_the_error_says_so(no_display):
    with pytest.raises(RuntimeError, match='view: there is no display'):
        open_window()


def test_without_windows_in_opencv_the_error_names_the_package_that_has_them(no_display, monkeypatch):
    def refuse(*_):
        raise cv2.error('The function is not implemented')  # as in opencv-python-headless

    monkeypatch.setenv('DISPLAY', ':0')
    monkeypatch.setattr(cv2, 'namedWindow', refuse)
    with pytest.raises(RuntimeError, match='pip install opencv-python'):
        open_window()


@pytest.mark.parametrize(
    ('key', 'visible', 'goes_on'),
    [
        pytest.param(-1, 1.0, True, id='no key'),
        pytest.param(ord('x'), 1.0, True, id='another key'),
        pytest.param(27, 1.0, False, id='Escape'),
        pytest.param(ord('q'), 1.0, False, id='q'),
        pytest.param(-1, 0.0, False, id='closed, GTK'),
        pytest.param(-1, cv2.error('NULL guiReceiver (please create a window)'), False, id='closed, Qt'),
    ],
)
def test_the_demo_goes_on_until_a_key_or_the_closing_of_the_window(monkeypatch, key, visible, goes_on):
    def prop(*_):
        if isinstance(visible, Exception):
            raise visible
        return visible

    monkeypatch.setattr(cv2, 'imshow', lambda *_: None)
    monkeypatch.setattr(cv2, 'waitKey', lambda _: key)
    monkeypatch.setattr(cv2, 'getWindowProperty', prop)
    assert show(np.zeros((4, 4, 3), np.uint8)) is goes_on
