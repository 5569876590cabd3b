"""Maps the top-level folders to the import package ``gocor``; everything else is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = {
    "gocor": "cli",
    "gocor.core": "core",
    "gocor.plugins": "plugins",
    "gocor.runtime": "runtime",
    "gocor.export": "export",
    "gocor.evaluation": "evaluation",
    "gocor.calibration": "calibration",
    "gocor.examples": "examples",  # no modules: the C++ program that gocor package hands on
}
PACKAGES = [*ROOT] + [f"{name}.{child}" for name, folder in ROOT.items() for child in find_packages(folder)]
HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "core/version.py").read_text())[1]

NVIDIA_WHEELS = 'platform_machine == "x86_64" and platform_system == "Linux"'
CUDA = 'cuda-python>=12.8; platform_system == "Linux"'  # memory, streams and graphs without torch

EXTRAS = {
    "cpu": ["onnxruntime>=1.23"],
    "gpu": ["onnxruntime-gpu>=1.23"],
    "export": ["torch>=2.9", "onnx>=1.19", "onnxscript>=0.5", "safetensors>=0.4"],
    "verify": ["polygraphy>=0.49.20"],
    "video": ["opencv-python-headless>=4.8,<5"],
    "plot": ["matplotlib>=3.8"],
    "parquet": ["pyarrow>=17"],
    "ray": ["ray[data]>=2.49", "pyarrow>=17"],
    "train": ["scikit-image>=0.25"],
    "tensorrt": ["tensorrt>=10.9", "onnx>=1.19", CUDA],
    "openvino": ["openvino>=2025.4", "onnx>=1.19"],
    "rtx": [f"tensorrt-rtx>=1.2; {NVIDIA_WHEELS}", "onnx>=1.19", CUDA],
}
# Never "tensorrt": its wheel downloads gigabytes. TensorRT-RTX is small and builds engines without a GPU.
WITHOUT_GPU = ("cpu", "openvino", "export", "verify", "video", "plot", "parquet", "train", "rtx")
EXTRAS["all"] = [requirement for extra in WITHOUT_GPU for requirement in EXTRAS[extra]]
EXTRAS["dev"] = [
    *("pytest>=8", "pytest-xdist>=3", "scikit-image>=0.25"),
    *("ruff>=0.12", "mypy>=1.15", "build>=1", "setuptools>=77"),
    # Native code. Kernels are compiled to PTX by one certain NVRTC: newer ones emit PTX that drivers refuse.
    *("cmake>=3.24", "clang-tidy"),
    *(f"nvidia-cuda-{part}-cu12==12.4.*; {NVIDIA_WHEELS}" for part in ("nvrtc", "runtime", "nvcc")),
    "tritonclient>=2.50",  # the schema of Triton's config.pbtxt; read with protobuf, without gRPC
    f"tensorrt_cu13_bindings>=11.4; {NVIDIA_WHEELS}",  # TensorRT's Python layer, without its libraries
]

setup(
    version=VERSION,
    package_dir=ROOT,
    packages=PACKAGES,
    include_package_data=False,  # what the source archive has besides is not for the wheel
    package_data={
        "gocor": ["py.typed"],
        "gocor.plugins": ["ptx/*", "**/*.h", "**/*.cuh", "**/*.cpp", "native/*", "CMakeLists.txt"],
        # libgocor, which a package brings along and which can be built from an installed package.
        "gocor.runtime": [f"cpp/**/*.{suffix}" for suffix in ("h", "hpp", "cpp", "map", "in", "txt")],
        "gocor.examples": ["cpp/*.h", "cpp/*.cpp", "cpp/*.txt"],
        "gocor.export.weights": ["*.safetensors", "README.md"],
    },
    install_requires=["numpy>=1.26", "pillow>=10.1", "rich>=13", "typer>=0.26"],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["gocor = gocor.__main__:main"]},
)
