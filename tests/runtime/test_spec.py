import pytest

from gocor.core.errors import ConfigError
from gocor.runtime.spec import SPECS, network_spec


@pytest.mark.parametrize(
    ("name", "size", "working"),
    [
        ("PWCNet", (436, 1024), (448, 1024)),
        ("PWCNet_GOCor", (1, 64), (64, 64)),
        ("GLUNet", (100, 263), (256, 256)),
        ("GLUNet_GOCor", (375, 1242), (368, 1240)),
    ],
)
def test_working_size(name: str, size: tuple[int, int], working: tuple[int, int]) -> None:
    assert network_spec(name).working_size(*size) == working


def test_the_orientation_test_of_plain_glunet_is_the_other_way_round() -> None:
    assert SPECS["GLUNet_GOCor"].orientation_higher_wins
    assert not SPECS["GLUNet"].orientation_higher_wins


def test_unknown_network_lists_those_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        network_spec("RAFT")
    expected = "network: unknown name 'RAFT'; one of PWCNet, PWCNet_GOCor, GLUNet, GLUNet_GOCor"
    assert str(caught.value) == expected
