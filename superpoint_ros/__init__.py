"""SuperPoint local features for robots: extract, match and track keypoints, live in ROS 2 or offline.

The names below are imported when they are used, so that `import superpoint_ros` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superpoint_ros.extractor import Extractor
    from superpoint_ros.features import Features, Matches
    from superpoint_ros.matching import match

    __version__: str

__all__ = ['Extractor', 'Features', 'Matches', '__version__', 'match']

_MODULES = {'Extractor': 'extractor', 'Features': 'features', 'Matches': 'features', 'match': 'matching'}


def __getattr__(name: str) -> Any:
    if name == '__version__':
        from xml.etree import ElementTree

        from superpoint_ros import resources

        return ElementTree.parse(resources.find('package.xml')).findtext('version')
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
