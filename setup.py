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
}
PACKAGES = [*ROOT] + [f"{name}.{child}" for name, folder in ROOT.items() for child in find_packages(folder)]
HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "core/version.py").read_text())[1]

EXTRAS = {
    "cpu": ["onnxruntime>=1.23"],
    "gpu": ["onnxruntime-gpu>=1.23"],
    "export": ["torch>=2.9", "onnx>=1.19", "onnxscript>=0.5", "safetensors>=0.4"],
    "verify": ["polygraphy>=0.49.20"],
    "video": ["opencv-python-headless>=4.8,<5"],
    "plot": ["matplotlib>=3.8"],
    "train": ["scikit-image>=0.25"],
}
WITHOUT_GPU = ("cpu", "export", "verify", "video", "plot", "train")
EXTRAS["all"] = [requirement for extra in WITHOUT_GPU for requirement in EXTRAS[extra]]
EXTRAS["dev"] = [
    *("pytest>=8", "pytest-xdist>=3", "scikit-image>=0.25"),
    *("ruff>=0.12", "mypy>=1.15", "build>=1", "setuptools>=77"),
]

setup(
    version=VERSION,
    package_dir=ROOT,
    packages=PACKAGES,
    package_data={"gocor": ["py.typed"]},
    install_requires=["numpy>=1.26", "pillow>=10.1", "rich>=13", "typer>=0.26"],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["gocor = gocor.__main__:main"]},
)
