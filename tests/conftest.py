"""Fixtures that several folders of tests share."""

from collections.abc import Callable

import pytest


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: ``invoke("inspect", path)`` gives code, stdout, stderr."""
    from gocor.__main__ import invoke as invoke_in_process

    def run(*arguments: object) -> tuple[int, str, str]:
        code = invoke_in_process([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
