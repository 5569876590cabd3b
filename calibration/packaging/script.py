"""The script of a package that makes its models again: the command lines, the versions, the hashes."""

import shlex
from collections.abc import Sequence

from gocor.calibration.packaging.guide import Guide
from gocor.calibration.packaging.models import CHECKPOINT, PACKAGE
from gocor.core.version import __version__
from gocor.export.weights import BUILT_IN

# What has equal bytes for equal input. Engines are tuned anew each time, and OpenVINO numbers what is in its
# graphs (.xml) by what the process did before; their weights (.bin) stay.
_RESTORED = (".onnx", ".bin")
_GIVEN = """\
: "${1:?the checkpoint, and a folder to write}"
CHECKPOINT=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"""
_SCRIPT = """\
#!/usr/bin/env bash
# Makes the models of this package again from the checkpoint, verifies each, and compares their hashes.
#
#   bash reproduce.sh{argument} again/
#
# The checkpoint is {checkpoint},
# SHA-256 {sha256}. Writes nothing into the package.
# Versions: pip install -r requirements.txt, and gocor-deploy {version}. With others the bytes of models may
# differ; ANY_VERSIONS=1 lets them through.
set -euo pipefail

PACKAGE=$(cd "$(dirname "$0")" && pwd)
{given}
OUTPUT=${{{output}:?{usage}}}
[ ! -e "$OUTPUT" ] || {{ echo "$OUTPUT: is there already; a new folder" >&2; exit 2; }}

python - "$PACKAGE/requirements.txt" "{version}" <<'END' || [ -n "${{ANY_VERSIONS:-}}" ]
import importlib.metadata, sys
wanted = dict(line.strip().split("==") for line in open(sys.argv[1]) if "==" in line)
wanted["gocor-deploy"] = sys.argv[2]
def installed(name):
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "nothing"
found = {{name: installed(name) for name in wanted}}
other = [f"{{n}}: {{found[n]}} is installed, {{v}} was used" for n, v in wanted.items() if found[n] != v]
sys.exit("\\n".join(other) + "\\n(ANY_VERSIONS=1 goes on)" if other else 0)
END

mkdir -p "$OUTPUT/models" "$OUTPUT/reports"
cd "$OUTPUT"
{link}
{commands}

# Every model against PyTorch, on the pairs of this package.
{verifications}

# The same bytes? (Graphs of OpenVINO and engines differ from one time to the next.)
sha256sum --check <<'END'
{hashes}
END
"""


def script(guide: Guide) -> str:
    """``reproduce.sh``."""
    built_in = guide.checkpoint in BUILT_IN
    output = "1" if built_in else "2"
    link = [] if built_in else [
        f'echo "{guide.described.checkpoint_sha256}  $CHECKPOINT" | sha256sum --check --quiet',
        # Models carry the name of their checkpoint.
        f'ln -s "$CHECKPOINT" {shlex.quote(guide.checkpoint)}', f"CHECKPOINT={shlex.quote(guide.checkpoint)}",
    ]  # fmt: skip
    given = _GIVEN if not built_in else f"CHECKPOINT={shlex.quote(guide.checkpoint)}"
    return _SCRIPT.format(
        argument="" if built_in else " their.pth", checkpoint=guide.checkpoint, version=__version__,
        sha256=guide.described.checkpoint_sha256 or "not known (it was exported from memory)",
        given=given, output=output, usage="a new folder to write", link="\n".join([*link, ""]),
        commands="\n".join(_commands(guide)), verifications="\n".join(_verifications(guide)),
        hashes="\n".join(f"{guide.hashes[path]}  {path}" for path in sorted(guide.hashes) if _restored(path)),
    )  # fmt: skip


def _restored(path: str) -> bool:
    return path.endswith(_RESTORED)


def _commands(guide: Guide) -> list[str]:
    lines = [line(one.plan.command) for one in guide.made]
    if guide.ranges:
        lines.insert(
            0, f"# Ranges of 8-bit models are those of the package. They were measured so:\n# {guide.ranges}"
        )
    return lines


def line(command: Sequence[str]) -> str:
    """A command line for the shell; the two variables of the script stay variables."""
    return " ".join(
        f'"{word}"' if word.startswith((CHECKPOINT, PACKAGE)) else shlex.quote(word) for word in command
    )


def _verifications(guide: Guide) -> list[str]:
    """A model that takes another machine is told by its own words; the others go on."""
    lines = []
    for one in guide.made:
        model = one.model
        height, width = one.plan.size
        table = f"{height}x{width}" if any((p.height, p.width) == one.plan.size for p in guide.pairs) else (
            f"{guide.pairs[0].height}x{guide.pairs[0].width}"
        )  # fmt: skip
        name = model.path.removeprefix("models/")
        lower = f" --tolerance {model.tolerance.aepe:g}" if model.precision != "fp32" else ""
        command = (
            f'gocor verify {model.path} "$CHECKPOINT" --pairs "$PACKAGE/pairs/{table}/pairs.csv"{lower} '
            f"--json reports/{name}.json"
        )
        lines.append(
            command if model.ran else f"{command} || echo 'not run where the package was made, either'"
        )
    return lines
