"""`make demo`: from a checkpoint to verified flow of two photos, with the commands a user would type."""

import shlex
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

OUTPUT = Path("demo-out")
CHECKPOINT, MODEL = OUTPUT / "untrained.pth", OUTPUT / "pwcnet_gocor.onnx"
REFERENCE, QUERY = OUTPUT / "reference.png", OUTPUT / "query.png"


def gocor(command: str) -> None:
    """Shows a command, runs it, and stops the demo if it fails."""
    print(f"\n$ gocor {command}", flush=True)
    code = subprocess.run([sys.executable, "-m", "gocor", *shlex.split(command)]).returncode
    if code:
        sys.exit(f"demo: this command ended with exit code {code}")


def make_inputs() -> None:
    """Writes a checkpoint and the image pair: Middlebury's motorcycle, which scikit-image carries."""
    import torch

    from gocor.export.checkpoint import seeded_network

    OUTPUT.mkdir(exist_ok=True)
    weights = seeded_network("PWCNet_GOCor").state_dict()
    for name in weights:
        if name.startswith(("predict_flow", "dc_conv7")):
            weights[name] *= 0.1  # else the flow is a hundred pixels of noise, unlike any real motion
    torch.save(weights, CHECKPOINT)
    photos = files("skimage") / "data"
    shutil.copyfile(str(photos / "motorcycle_left.png"), REFERENCE)
    shutil.copyfile(str(photos / "motorcycle_right.png"), QUERY)


def main() -> None:
    """Runs the demo."""
    make_inputs()
    gocor(f"export {CHECKPOINT} -o {MODEL} --size 500x741")
    gocor(f"verify {MODEL} {CHECKPOINT}")
    gocor(f"run {MODEL} {REFERENCE} {QUERY} -o {OUTPUT}/flow")
    print("\nPictures:")
    for picture in sorted(OUTPUT.rglob("*.png")):
        print(f"  {picture.resolve()}")
    print(
        "\nThe weights are random numbers, not trained: every step is real, but the flow means nothing yet."
        "\nFor flow that does, give these commands your own checkpoint in place of untrained.pth."
    )


if __name__ == "__main__":
    main()
