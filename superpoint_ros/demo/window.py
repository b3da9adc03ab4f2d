"""A window that shows the demo while it runs."""

from __future__ import annotations

import os
import sys

import cv2

from superpoint_ros.drawing import Canvas

TITLE = 'superpoint demo'


def open_window() -> None:
    """Open the window.

    Raises:
        RuntimeError: there is no display, or this OpenCV has no windows.
    """
    # Without a display, Qt in OpenCV would end the process.
    if sys.platform == 'linux' and not (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
        raise RuntimeError('view: there is no display (DISPLAY is not set); without --view, the picture is in demo.png')
    try:
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_GUI_NORMAL)
        cv2.resizeWindow(TITLE, 1200, 480)
    except cv2.error as error:
        raise RuntimeError(
            'view: this OpenCV has no windows; replace opencv-python-headless by opencv-python: '
            'pip uninstall opencv-python-headless, then pip install opencv-python'
        ) from error


def show(picture: Canvas) -> bool:
    """Show a picture, and return whether to go on: False after Escape, q, or when the window is closed."""
    cv2.imshow(TITLE, picture)
    key = cv2.waitKey(1) & 0xFF
    try:
        return key not in (27, ord('q')) and cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) > 0
    except cv2.error:  # OpenCV with Qt, once the window is closed
        return False
