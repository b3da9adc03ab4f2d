"""pip and colcon build and install the package."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ('3.10', '3.11', '3.12', '3.13', '3.14')
FOLDERS = (
    'cmake', 'config', 'examples', 'include', 'launch', 'models', 'resource', 'rtabmap', 'scripts', 'superpoint_ros'
)  # fmt: skip
EXECUTABLES = {'superpoint_camera', 'superpoint_detector', 'superpoint_matcher'}
SHARED = sorted(
    path.relative_to(ROOT)
    for folder, pattern in (
        ('launch', '*.launch.py'),
        ('config', '**/*.*'),
        ('models', '*'),
        ('rtabmap', '*.py'),
        ('include', '**/*.hpp'),
        ('cmake', '*.cmake'),
    )
    for path in (ROOT / folder).glob(pattern)
)

# Modules that are called otherwise than what is installed, and those that come with ROS itself.
DISTRIBUTIONS = {
    'backports': 'backports-zstd',
    'cuda': 'cuda-python',
    'cv2': 'opencv-python-headless',
    'google': 'protobuf',
    'skimage': 'scikit-image',
    'yaml': 'pyyaml',
}
OF_ROS = {'cv_bridge', 'launch', 'launch_ros'}


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy of the source tree, so that builds do not touch the tree."""
    copy = tmp_path_factory.mktemp('source') / 'superpoint_ros'
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith('.'):
            shutil.copy(path, copy)
    return copy


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory):
    return build_wheel(source, tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='module')
def own_package(tmp_path_factory):
    return installed_package(tmp_path_factory.mktemp('elsewhere'))


@pytest.fixture(scope='module')
def prefix(own_package, wheel, tmp_path_factory):
    """The folder that `pip install` put the package in; quicker than a virtual environment."""
    folder = tmp_path_factory.mktemp('prefix')
    # Without --ignore-installed, pip uninstalls the package from the environment that runs the tests.
    options = ['-q', '--ignore-installed', '--no-deps', '--no-index', '--no-warn-script-location']
    run('pip', 'install', *options, '--prefix', folder, wheel)
    return folder


def run(module, *arguments, **options):
    return subprocess.run(
        [sys.executable, '-m', module, *map(str, arguments)], check=True, capture_output=True, text=True, **options
    )


def build_wheel(source, folder):
    run('pip', 'wheel', '-q', '--no-deps', '--no-index', '--no-build-isolation', '-w', folder, source)
    return next(folder.glob('*.whl'))


def environment(packages, prefix):
    """Environment variables of a process with the package in `packages` and the index of ROS in `prefix`."""
    index = [str(prefix), *filter(None, [os.environ.get('AMENT_PREFIX_PATH', '')])]
    return {**os.environ, 'PYTHONPATH': str(packages), 'AMENT_PREFIX_PATH': os.pathsep.join(index)}


def site_packages(prefix):
    return Path(sysconfig.get_path('purelib', vars={'base': str(prefix), 'platbase': str(prefix)}))


@pytest.fixture(scope='module')
def required(prefix):
    """The requirements of the built package by distribution, with their extras ('' for none)."""
    metadata = next(importlib.metadata.distributions(name='superpoint_ros', path=[str(site_packages(prefix))])).metadata
    assert {'ros', 'cpu', 'gpu', 'train', 'cluster', 'test'} <= set(metadata.get_all('Provides-Extra'))
    found = {}
    for line in metadata.get_all('Requires-Dist'):
        requirement = Requirement(line)
        extra = re.search(r'extra == "(\w+)"', str(requirement.marker))
        entry = found.setdefault(canonicalize_name(requirement.name), (requirement, set()))
        entry[1].add(extra[1] if extra else '')
    return found


def test_a_wheel_has_every_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        infos = {info.filename: info for info in archive.infolist()}
    data = 'superpoint_ros-[^/]*.data/data/'
    shared = {
        re.sub(f'^{data}share/superpoint_ros/', '', name) for name in infos if re.match(f'{data}share/superp', name)
    }
    assert shared == {'package.xml', *map(str, SHARED)}
    programs = {Path(name).name: info for name, info in infos.items() if re.match(f'{data}lib/superpoint_ros/', name)}
    assert set(programs) == EXECUTABLES
    assert all(info.external_attr >> 16 & 0o111 == 0o111 for info in programs.values())
    assert any(re.match(f'{data}share/ament_index/resource_index/packages/superpoint_ros$', name) for name in infos)
    modules = {name for name in infos if name.startswith('superpoint_ros/')}
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / 'superpoint_ros').rglob('*.py')}
    assert modules == {*expected, 'superpoint_ros/py.typed'}


def test_a_source_distribution_has_every_file_and_builds_the_same_wheel(source, wheel, tmp_path):
    subprocess.run(
        [sys.executable, 'setup.py', '-q', 'sdist', '-d', str(tmp_path)], cwd=source, check=True, capture_output=True
    )
    archive = next(tmp_path.glob('*.tar.gz'))
    with tarfile.open(archive) as packed:
        names = {name.partition('/')[2] for name in packed.getnames()}
    assert names >= {str(path.relative_to(source)) for folder in FOLDERS for path in (source / folder).rglob('*.*')}
    again = build_wheel(archive, tmp_path)
    assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(wheel).namelist()


def test_version_and_license_come_from_package_xml(prefix):
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    metadata = next(importlib.metadata.distributions(name='superpoint_ros', path=[str(site_packages(prefix))])).metadata
    assert metadata['Version'] == package.findtext('version')
    assert metadata['License'] == package.findtext('license') == 'Apache-2.0'
    assert metadata['Requires-Python'] == '>=3.10'


@pytest.mark.parametrize('name', ['package.xml', *map(str, SHARED)])
def test_files_are_found_in_the_source_tree(name):
    program = f'from superpoint_ros import resources; print(resources.find({name!r}))'
    found = subprocess.run(
        [sys.executable, '-c', program], env=environment(ROOT, ROOT), check=True, capture_output=True, text=True
    )
    assert Path(found.stdout.strip()) == ROOT / name


def test_the_environment_of_the_tests_keeps_its_package(own_package, prefix, tmp_path):
    assert (prefix / 'lib').is_dir()
    assert installed_package(tmp_path) == own_package


def installed_package(elsewhere):
    """The package's files and metadata in the environment that runs the tests."""
    program = """
import importlib.metadata, superpoint_ros
print(superpoint_ros.__file__, importlib.metadata.distribution('superpoint_ros').locate_file(''))
"""
    env = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    command = [sys.executable, '-c', program]
    return subprocess.run(command, env=env, cwd=elsewhere, check=True, capture_output=True, text=True).stdout


def test_pip_puts_files_and_executables_where_they_are_found(prefix, tmp_path):
    check_installation(site_packages(prefix), prefix, prefix, tmp_path)


@pytest.mark.parametrize('option', [(), ('--symlink-install',)], ids=['copied', 'linked'])
def test_colcon_puts_files_and_executables_where_they_are_found(option, source, tmp_path):
    pytest.importorskip('colcon_core', reason='needs colcon: pip install colcon-ros')
    pytest.importorskip('colcon_ros', reason='needs colcon: pip install colcon-ros')
    workspace = tmp_path / 'workspace'
    shutil.copytree(source, workspace / 'src' / 'superpoint_ros', symlinks=True)
    run('colcon', 'build', *option, cwd=workspace, env={**os.environ, 'COLCON_LOG_PATH': str(tmp_path / 'log')})
    installed = workspace / 'install' / 'superpoint_ros'
    # With links it is found by way of an .egg-link, as the interpreter finds packages that are being worked on.
    packages = workspace / 'build' / 'superpoint_ros' if option else site_packages(installed)
    check_installation(packages, installed, workspace, tmp_path)


def check_installation(packages, prefix, within, elsewhere):
    """Check that files are found in a folder, ROS finds the package, and an executable starts its node."""
    program = f"""
import superpoint_ros
from superpoint_ros import resources
print(superpoint_ros.__file__)
for name in {['package.xml', *map(str, SHARED)]}:
    print(resources.find(name))
"""
    env = environment(packages, prefix)
    found = subprocess.run(
        [sys.executable, '-c', program], env=env, cwd=elsewhere, check=True, capture_output=True, text=True
    )
    assert all(within in Path(line).parents for line in found.stdout.splitlines())
    assert (prefix / 'share/ament_index/resource_index/packages/superpoint_ros').exists()
    assert (prefix / 'share/superpoint_ros/launch/detector.launch.py').exists()
    programs = prefix / 'lib' / 'superpoint_ros'
    assert {path.name for path in programs.iterdir()} == EXECUTABLES
    pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    started = subprocess.run(
        [programs / 'superpoint_camera', '--ros-args', '-p', 'rate:=-1.0'],
        env=env,
        cwd=elsewhere,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert started.returncode == 1
    assert started.stderr.strip().startswith('superpoint_camera: rate: -1.0 is out of range')


def test_every_import_is_required(required):
    missing = []
    for path in sorted((ROOT / 'superpoint_ros').rglob('*.py')):
        for module in imported(path):
            package = module.partition('.')[0]
            if package in sys.stdlib_module_names or package in OF_ROS or package in ('superpoint_ros', 'compression'):
                continue
            name = canonicalize_name(DISTRIBUTIONS.get(package, package))
            if not {name, f'ros-{name}'} & set(required):
                missing.append(f'{path.relative_to(ROOT)}: {module}')
    assert not missing, 'neither setup.py nor an extra installs what is imported here'


def test_package_xml_depends_on_every_ros_package_that_is_imported():
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    asked = {element.text for element in package.findall('exec_depend')}
    used = {m.partition('.')[0] for path in (ROOT / 'superpoint_ros').rglob('*.py') for m in imported(path)}
    messages = {name for name in used if name.endswith(('_msgs', '_srvs', '_interfaces'))}
    assert messages | {'rclpy', 'launch', 'launch_ros'} <= asked


def imported(path):
    """The modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def pins(python):
    """The pinned version of each distribution on a Python."""
    found = {}
    for line in (ROOT / 'constraints.txt').read_text().splitlines():
        if line and not line.startswith('#'):
            pin = Requirement(line)
            (specifier,) = pin.specifier
            assert specifier.operator == '==', f'{line} is no exact pin'
            if pin.marker is None or pin.marker.evaluate({'python_version': python}):
                assert canonicalize_name(pin.name) not in found, f'{pin.name} is pinned twice for Python {python}'
                found[canonicalize_name(pin.name)] = specifier.version
    return found


@pytest.mark.parametrize('python', PYTHONS)
def test_every_requirement_is_pinned_to_a_version_that_it_allows(python, required):
    pinned = pins(python)
    wrong = []
    for name, (requirement, _) in required.items():
        versions = requirement.marker and 'python_version' in str(requirement.marker)
        if versions and not requirement.marker.evaluate({'python_version': python, 'extra': ''}):
            continue
        if not requirement.specifier.contains(pinned.get(name, '0'), prereleases=True):
            wrong.append(f'{requirement} but {pinned.get(name, "no pin")}')
    assert not wrong


def test_the_extra_that_a_missing_back_end_names_installs_it(required):
    from superpoint_ros.runtimes import TABLE

    for name, backend in TABLE.items():
        for library in backend.libraries:
            package = DISTRIBUTIONS.get(library.partition('.')[0], canonicalize_name(library))
            assert backend.extra in required[package][1], f'{name}: superpoint_ros[{backend.extra}] lacks {library}'
