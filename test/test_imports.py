"""Dependencies point one way, and the core needs neither torch nor ROS."""

import ast
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import superpoint_ros

PACKAGE = Path(superpoint_ros.__file__).parent

CORE = [
    'blas', 'calibration', 'clouds', 'config', 'decode', 'drawing', 'extractor', 'feature_files', 'features',
    'files', 'geometry', 'image_files', 'images', 'learned_matching', 'matching', 'models', 'reports', 'resources',
    'rtabmap', 'runtimes', 'stream_tracker', 'tracking',
]  # fmt: skip

PARTS = ['benchmark', 'bags', 'commands', 'demo', 'evaluation', 'mapping', 'networks', 'ros', 'runtimes', 'training']

ALLOWED = {
    'networks': [],
    'runtimes': ['networks'],  # torch and TensorRT back ends, and export: imported when chosen
    'training': ['networks'],
    'evaluation': ['mapping', 'networks', 'runtimes', 'training'],
    'mapping': ['bags'],
    'bags': ['runtimes'],
    'ros': ['runtimes'],
    'demo': ['runtimes', 'ros'],
    'benchmark': ['networks', 'runtimes', 'ros', 'demo'],
}
"""The parts that each part may import in addition to the core."""

HEAVY = [
    'torch',
    'lightning',
    'rclpy',
    'sensor_msgs',
    'rosbags',
    'openvino',
    'tensorrt',
    'cuda',
    'onnx',
    'nncf',
    'ray',
]


def imports(path, at_import_only=False):
    """The modules that a file imports, as dotted names; of `from a import b` both a and a.b."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree))
    if at_import_only:
        inside = {id(n) for f in nodes if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) for n in ast.walk(f)}
        nodes = [node for node in nodes if id(node) not in inside]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            yield node.module
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def parts_of(path):
    """Parts of the package that a file imports."""
    names = [name.split('.') for name in imports(path)]
    return {name[1] for name in names if name[0] == 'superpoint_ros' and len(name) > 1}


def files(part):
    folder = PACKAGE / part
    return sorted(folder.rglob('*.py')) if folder.is_dir() else [folder.with_suffix('.py')]


@pytest.mark.parametrize('part', sorted(ALLOWED))
def test_a_part_imports_only_the_core_and_its_dependencies(part):
    allowed = {*CORE, *ALLOWED[part], part, '__version__'}
    wrong = {f'{path.name} → {other}' for path in files(part) for other in parts_of(path) - allowed}
    assert not wrong


@pytest.mark.parametrize('module', [name for name in CORE if name != 'runtimes'])
def test_the_core_imports_only_the_core(module):
    (path,) = files(module)
    assert parts_of(path) <= {*CORE, '__version__'}
    assert not {name.split('.')[0] for name in imports(path)} & set(HEAVY)


@pytest.mark.parametrize(
    'name', ['openvino', 'tensorrt', 'cuda', 'engine_build', 'engine_check', 'graph_info', 'onnx_graph']
)
def test_robots_do_not_need_torch(name):
    """Of the networks only their configurations are imported, which need no torch."""
    found = set(imports(PACKAGE / 'runtimes' / f'{name}.py'))
    assert not {module for module in found if module.split('.')[0] in ('torch', 'safetensors')}
    assert {module for module in found if module.startswith('superpoint_ros.networks.')} <= {
        'superpoint_ros.networks.lightglue_config',
        'superpoint_ros.networks.lightglue_config.LightGlueConfig',
    }


def test_openvino_runs_without_the_onnx_package():
    """The newest onnx brings NumPy 2, which OpenCV and cv_bridge of Ubuntu 22.04 and 24.04 cannot use."""
    for name in ('openvino', 'graph_info'):
        assert 'onnx' not in {module.split('.')[0] for module in imports(PACKAGE / 'runtimes' / f'{name}.py')}


def test_every_module_is_listed():
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == '.py' or (path / '__init__.py').is_file()}
    assert found == {*CORE, *PARTS, '__init__', 'arguments', 'cli'}


BLOCK = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {blocked!r}:
            raise ImportError(f'{{name}} is blocked')
sys.meta_path.insert(0, Blocker())
{statement}
"""


def python(statement, blocked):
    code = BLOCK.format(blocked=blocked, statement=statement)
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)


def test_the_public_names_are_imported_when_they_are_used():
    statement = """
import superpoint_ros
assert not {name for name in sys.modules if name.startswith('superpoint_ros.')} and 'numpy' not in sys.modules
assert set(superpoint_ros.__all__) <= set(dir(superpoint_ros))
from superpoint_ros import *
import superpoint_ros.features, superpoint_ros.matching
assert Features is superpoint_ros.features.Features and match is superpoint_ros.matching.match
print(superpoint_ros.__version__, superpoint_ros.Extractor.__name__, superpoint_ros.Matches.__name__)
try:
    superpoint_ros.nonsense
except AttributeError as error:
    print(error)
"""
    version = ElementTree.parse(PACKAGE.parent / 'package.xml').findtext('version')
    lines = [f'{version} Extractor Matches', "module 'superpoint_ros' has no attribute 'nonsense'"]
    result = python(statement, HEAVY)
    assert result.stdout.splitlines() == lines, result.stderr


def test_the_core_works_without_torch_ros_and_back_ends():
    modules = ', '.join(f'superpoint_ros.{name}' for name in [*CORE, 'arguments', 'cli'])
    result = python(f'import superpoint_ros, {modules}', HEAVY)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ('backend', 'library', 'extra'), [('openvino', 'openvino', 'cpu'), ('torch', 'torch', 'train')]
)
def test_a_missing_back_end_names_the_extra_to_install(backend, library, extra, tmp_path):
    (tmp_path / 'model.onnx').touch()
    statement = f"""
from superpoint_ros.extractor import Extractor
try:
    Extractor({str(tmp_path / 'model.onnx')!r}, backend={backend!r})
except ImportError as error:
    print(error)
"""
    result = python(statement, [library])
    assert f'back end {backend} needs {library}' in result.stdout, result.stderr
    assert f'pip install superpoint_ros[{extra}]' in result.stdout
