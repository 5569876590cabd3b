"""A Python that has only some of the packages that are installed."""

import json
import subprocess
import sys

# Run first in the other Python: third-party modules outside the list cannot be imported.
BLOCK = """
import importlib.metadata, json, re, sys

def closure(names):
    found, todo = set(), list(names)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name not in found:
            found.add(name)
            try:
                needed = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            todo += [re.match(r"[\\w.-]+", n)[0] for n in needed if "extra ==" not in n]
    return found

allowed = closure(json.loads(sys.argv[1]))
homes = importlib.metadata.packages_distributions()

class Blocker:
    def find_spec(self, name, path=None, target=None):
        owners = {re.sub(r"[-_.]+", "-", o).lower() for o in homes.get(name.split(".")[0], [])}
        if owners and not owners & (allowed | {"gocor-deploy"}):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
sys.argv = ["gocor", *sys.argv[2:]]
"""


def in_python_with(packages: list[str], code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCK + code, json.dumps(packages), *arguments],
        capture_output=True, text=True, cwd="/", timeout=120,
    )  # fmt: skip
