"""Which source tree a figure belongs to."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def commit() -> str:
    """Of the source tree, with ``+`` if its files were changed; empty where there is no repository."""
    if shutil.which("git") is None:
        return ""
    head = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    if head.returncode != 0:
        return ""
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=ROOT, capture_output=True).returncode
    return head.stdout.strip() + "+" * bool(changed)
