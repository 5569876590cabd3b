"""The script of a package that makes its models again: the command lines, the versions, the hashes."""

import shlex
from collections.abc import Sequence

from gocor.calibration.packaging.guide import Guide
from gocor.calibration.packaging.models import CHECKPOINT, PACKAGE
from gocor.core.errors import visible
from gocor.core.version import __version__

# What has equal bytes for equal input. Engines are tuned anew each time, and OpenVINO numbers what is in its
# graphs (.xml) by what the process did before; their weights (.bin) stay.
_RESTORED = (".onnx", ".bin")
_GIVEN = """\
: "${{1:?the checkpoint, and a folder to write}}"
[ -f "$1" ] || {{ echo "$1: no such file; the checkpoint that the package was made of" >&2; exit 2; }}
case $(sha256sum < "$1") in
    {sha256}*) ;;
    *) echo "$1: is not the checkpoint that the package was made of (another SHA-256)" >&2; exit 2 ;;
esac
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
OUTPUT=${{{output}:?a new folder to write}}
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
    name, digest = shlex.quote(guide.checkpoint), guide.described.checkpoint_sha256
    given = f"CHECKPOINT={name}" if guide.built_in else _GIVEN.format(sha256=digest)
    # Models carry the name of their checkpoint.
    link = "" if guide.built_in else f'ln -s "$CHECKPOINT" {name}\nCHECKPOINT={name}\n'
    return _SCRIPT.format(
        argument="" if guide.built_in else " their.pth", output="1" if guide.built_in else "2",
        checkpoint=visible(guide.checkpoint), sha256=digest, version=__version__, given=given, link=link,
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
        name = model.path.removeprefix("models/")
        lower = f" --tolerance {model.tolerance.aepe:g}" if model.precision != "fp32" else ""
        command = (
            f'gocor verify {model.path} "$CHECKPOINT" --pairs "$PACKAGE/{one.plan.pairs}"{lower} '
            f"--json reports/{name}.json"
        )
        lines.append(
            command if model.ran else f"{command} || echo 'not run where the package was made, either'"
        )
    return lines
