import importlib.metadata
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gocor.runtime import environment


def test_this_machine() -> None:
    found = environment.machine()
    assert found.cores >= 1
    assert found.cpu
    assert found.versions["numpy"] == np.__version__
    assert "gocor-deploy" in found.versions


def test_every_extra_a_user_may_need_is_listed_from_the_distribution_itself() -> None:
    extras = {package.extra for package in environment.packages()}
    assert {"cpu", "gpu", "export", "verify", "video", "plot"} <= extras
    assert not {"all", "dev"} & extras


def test_packages_say_what_serves_and_whether_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = [
        "numpy>=1.26",
        'torch>=2.9; extra == "export"',
        "onnxruntime>=1.23; sys_platform != 'x' and extra == 'cpu'",
        'polygraphy>=0.49.20 ; extra == "verify"',
        'torch>=2.9; extra == "all"',
    ]
    versions = {"torch": "2.5.1+cpu", "onnxruntime-gpu": "1.31.0"}
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requirements)
    monkeypatch.setattr(environment, "version", lambda name: versions.get(name, ""))
    assert environment.packages() == [
        environment.Package("export", "torch>=2.9", "torch 2.5.1+cpu", False),
        environment.Package("cpu", "onnxruntime>=1.23", "onnxruntime-gpu 1.31.0", True),
        environment.Package("verify", "polygraphy>=0.49.20", "", False),
    ]


@pytest.mark.parametrize(
    ("installed", "versions", "fits"),
    [
        ("2.13.0+cpu", ">=2.9", True),
        ("2.9", ">=2.9.0", True),
        ("2.10", ">=2.9,<3", True),
        ("3.0.0", "<3,>=2.9", False),
        ("2.8.9", ">=2.9", False),
        ("0.49.3", ">=0.49.20", False),
        ("1.0", "", True),
    ],
)
def test_versions_compare_by_their_numbers(installed: str, versions: str, fits: bool) -> None:
    assert environment.satisfies(installed, versions) == fits


def test_gpus_as_the_driver_lists_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA L4, 23034 MiB, 580.10, 8.9'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert environment.gpus() == (environment.Gpu("NVIDIA L4", "23034 MiB", "580.10", "8.9"),)


def test_a_driver_that_does_not_answer_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(environment.shutil, "which", lambda name: "/bin/nvidia-smi")
    monkeypatch.setattr(environment.subprocess, "run", fail)
    assert environment.gpus() == ()
