"""Build superpoint_ros with pip or colcon. The package's name, version and license stand in package.xml."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

# Where `colcon build --symlink-install` builds is a link to this file alone.
ROOT = Path(__file__).resolve().parent
PACKAGE = ElementTree.parse(ROOT / 'package.xml').getroot()
NAME = PACKAGE.findtext('name')
MAINTAINER = PACKAGE.find('maintainer')
assert NAME is not None
assert MAINTAINER is not None

# Wheels of ROS 2 from PyPI, for machines without a ROS installation.
ROS = [
    'ros-rclpy[fastrtps]>=9.1',
    'ros-diagnostic-msgs',
    'ros-geometry-msgs',
    'ros-lifecycle-msgs',
    'ros-rcl-interfaces',
    'ros-sensor-msgs',
    'ros-std-msgs',
    'ros-std-srvs',
    'ros-visualization-msgs',
]
CPU = ['openvino>=2025.4']
CUDA = 'cuda-python>=12.6; platform_system == "Linux"'
DEMO = ['scikit-image>=0.24']
TRAIN = [
    *CPU,
    'lightning>=2.5',
    'matplotlib>=3.8',
    'nncf>=3.0',
    'onnx>=1.16',
    'onnxruntime>=1.20',  # NNCF runs the graph with it
    'tensorboard>=2.16',
    'torch>=2.6',
]
HDF5 = ['h5py>=3.10']
MAP = ['pycolmap>=4.0']
CLUSTER = ['ray>=2.40']
TEST = [
    CUDA,  # without a GPU or TensorRT, to test our calls against
    'colcon-ros>=0.5',
    'hypothesis>=6.100',
    'mypy>=1.15',
    'pytest>=8',
    'pytest-timeout>=2.3',
    'ros-nav-msgs',
    'ruff>=0.9',
    'setuptools>=59.6',
]


def shared(pattern: str) -> list[tuple[str, list[str]]]:
    """The files that match, each with the folder of share/superpoint_ros that it goes to."""
    files = sorted(path for path in Path().glob(pattern) if path.is_file())
    return [(str('share' / Path(str(NAME)) / path.parent), [str(path)]) for path in files]


setup(
    name=NAME,
    version=PACKAGE.findtext('version'),
    description=PACKAGE.findtext('description'),
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license=PACKAGE.findtext('license'),
    maintainer=MAINTAINER.text,
    maintainer_email=MAINTAINER.get('email'),
    python_requires='>=3.10',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    package_data={NAME: ['py.typed']},
    zip_safe=False,
    # Those of NumPy and OpenCV are Ubuntu 22.04's, beside ROS 2 Humble.
    install_requires=[
        'apsw>=3.42',  # rosbags needs it too
        'backports.zstd; python_version < "3.14"',
        'docstring-parser>=0.15',
        'filelock>=3.6',
        'jsonargparse[signatures]>=4.49',
        'lz4>=4.3',
        'mcap>=1.2',
        'numpy>=1.21.5',
        'opencv-python-headless>=4.5.4',
        'platformdirs>=3',
        'PyYAML>=6',
        'rich>=13',
        'rosbags>=0.11,<0.12',  # bags/limits.py reaches into its readers
        'safetensors>=0.5',
    ],
    extras_require={
        'ros': ROS,
        'cpu': CPU,
        # On a Jetson TensorRT comes with JetPack; a second one from PyPI would hide it.
        'gpu': [CUDA, 'onnx>=1.16', 'protobuf', 'tensorrt>=10.3; platform_machine == "x86_64"'],
        'demo': DEMO,
        'train': TRAIN,
        'hdf5': HDF5,
        'map': MAP,
        'cluster': CLUSTER,
        'test': [*ROS, *CPU, *DEMO, *TRAIN, *HDF5, *MAP, *CLUSTER, *TEST],
    },
    entry_points={
        'console_scripts': [
            'superpoint = superpoint_ros.cli:main',
            'superpoint_camera = superpoint_ros.demo.camera:main',
            'superpoint_detector = superpoint_ros.ros.start:detector',
            'superpoint_matcher = superpoint_ros.ros.start:matcher',
        ],
    },
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        (f'lib/{NAME}', [str(path) for path in sorted(Path('scripts').iterdir())]),
        *shared('launch/*.launch.py'),
        *shared('config/**/*.yaml'),
        *shared('config/*.xml'),
        *shared('config/*.json'),
        *shared('config/*.rviz'),
        *shared('include/**/*.hpp'),
        *shared('cmake/*.cmake'),
        *shared('models/*'),
        *shared('rtabmap/*.py'),
    ],
)
