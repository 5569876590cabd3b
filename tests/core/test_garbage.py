import gc

import pytest

from gocor.core.garbage import no_garbage_collection


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_is_as_before_afterwards_even_after_an_error(was_on: bool) -> None:
    def fail() -> None:
        with no_garbage_collection():
            assert not gc.isenabled()
            raise KeyError

    (gc.enable if was_on else gc.disable)()
    try:
        with pytest.raises(KeyError):
            fail()
        assert gc.isenabled() == was_on
    finally:
        gc.enable()
