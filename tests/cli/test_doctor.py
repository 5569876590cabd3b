import json
from collections.abc import Callable

import pytest

from gocor.core.version import __version__
from gocor.runtime import doctor

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "probe_providers", lambda: {"cpu": "", "cuda": 'pip install "x[gpu]"'})
    monkeypatch.setattr(doctor, "probe_engines", lambda: {"run engines": "no GPU"})


def test_tables(invoke: Invoke) -> None:
    code, out, _ = invoke("doctor")
    assert code == 0
    assert all(text in out for text in (__version__, "run on cpu", "onnxruntime>=", "polygraphy>="))
    assert 'pip install "x[gpu]"' in out  # brackets are no markup


def test_json(invoke: Invoke) -> None:
    code, out, _ = invoke("doctor", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["machine"]["versions"]["gocor-deploy"] == __version__
    assert {"name": "run on cpu", "works": True, "hint": ""} in report["capabilities"]
