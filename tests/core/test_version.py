import importlib.metadata

import gocor


def test_the_installed_version_is_the_one_in_the_source() -> None:
    assert gocor.__version__ == importlib.metadata.version("gocor-deploy")
