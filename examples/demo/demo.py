"""`make demo`: from a checkpoint to verified flow of two photos, with the commands a user would type."""

import shlex
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from PIL import Image

OUTPUT = Path("demo-out")
CHECKPOINT = "pwcnet-gocor-demo"  # comes with the package
MODEL = OUTPUT / "pwcnet_gocor.onnx"
REFERENCE, QUERY = OUTPUT / "reference.png", OUTPUT / "query.png"
HEIGHT, WIDTH = 250, 370  # half of the photos: motions of 30 px; the checkpoint was trained on up to 24


def gocor(command: str) -> None:
    """Shows a command, runs it, and stops the demo if it fails."""
    print(f"\n$ gocor {command}", flush=True)
    code = subprocess.run([sys.executable, "-m", "gocor", *shlex.split(command)]).returncode
    if code:
        sys.exit(f"demo: this command ended with exit code {code}")


def make_inputs() -> None:
    """Writes the image pair: Middlebury's motorcycle, which scikit-image carries, at half its size."""
    OUTPUT.mkdir(exist_ok=True)
    for side, path in (("left", REFERENCE), ("right", QUERY)):
        with Image.open(str(files("skimage") / "data" / f"motorcycle_{side}.png")) as photo:
            photo.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(path)


def main() -> None:
    """Runs the demo."""
    make_inputs()
    gocor(f"export {CHECKPOINT} -o {MODEL} --size {HEIGHT}x{WIDTH}")
    gocor(f"verify {MODEL} {CHECKPOINT}")
    gocor(f"run {MODEL} {REFERENCE} {QUERY} -o {OUTPUT}/flow")
    print("\nPictures:")
    for picture in sorted(OUTPUT.rglob("*.png")):
        print(f"  {picture.resolve()}")
    print(
        "\nThe camera moved to the right: what is near moves far to the left, the wall behind hardly at all."
    )


if __name__ == "__main__":
    main()
