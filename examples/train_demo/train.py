"""Trains PWC-Net-GOCor from scratch on synthetic pairs, on a CPU or a GPU, or fine-tunes a checkpoint.

    python examples/train_demo/train.py --out training/                  # starts, or goes on where it stopped
    python examples/train_demo/train.py --out more/ --init pwcnet-gocor-demo --learning-rate 1e-4

The defaults are the run behind ``pwcnet-gocor-demo``; ``--init`` goes on from a checkpoint's weights instead.
Every state is written whole or not at all, so that the run can be killed at any moment and started again.
"""

import csv
import dataclasses
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from gocor.core.errors import GocorError
from gocor.core.files import atomic_path
from gocor.evaluation.synthetic.config import SyntheticConfig
from gocor.evaluation.synthetic.generator import generate
from gocor.export.checkpoint import load_network
from gocor.export.networks import PWCNet_GOCor

# Weight of each level's mean end-point error, coarsest first; levels of fewer pixels count for less.
LEVEL_WEIGHTS = (0.1, 0.15, 0.2, 0.25, 0.3)
FLOW_UNIT = 20.0  # px: the network's outputs are in this unit


@dataclass(frozen=True)
class Config:
    """What a run is; a state file goes on only with the same.

    Attributes:
        steps: of the optimiser, in all.
        batch: pairs in a step.
        crop: height and width of the pairs at the end; the first half of the run uses two thirds of it.
        displacement: longest vector at the end, px; it grows over the first half from a quarter of it.
        learning_rate: at the top of the one-cycle schedule.
        iterations: of GOCor, unrolled.
        seed: of the weights and the pairs.
    """

    steps: int = 5000
    batch: int = 4
    crop: int = 192
    displacement: float = 24.0
    learning_rate: float = 4e-4
    iterations: int = 3
    seed: int = 0

    def pairs(self, step: int) -> SyntheticConfig:
        """The curriculum: what the pairs of a step are like."""
        progress = min(1.0, 2 * step / self.steps)
        side = self.crop if progress == 1 else max(64, round(self.crop * 2 / 3 / 64) * 64)
        longest = self.displacement * (0.25 + 0.75 * progress)
        # Whole pixels, since the generator keeps tables for each config.
        return SyntheticConfig(side, side, max_displacement=float(math.ceil(longest)), seed=self.seed)


class MixedPrecision(PWCNet_GOCor):
    """On a GPU, pyramid and decoders in bfloat16; correlations, flow heads and warping stay in float32."""

    def pyramid(self, reference: Tensor, query: Tensor) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Features of both images by level."""
        with self._autocast(reference):
            references, queries = super().pyramid(reference, query)
        return {n: f.float() for n, f in references.items()}, {n: f.float() for n, f in queries.items()}

    def decode(self, level: int, x: Tensor) -> Tensor:
        """Features of a level from its decoder's input."""
        with self._autocast(x):
            return super().decode(level, x).float()

    @staticmethod
    def _autocast(x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda)


class Trainer:
    """Network, optimiser and schedule, and their state on disk."""

    def __init__(self, config: Config, out: Path, device: torch.device, init: Path | None) -> None:
        self.config, self.out, self.device = config, out, device
        self.step = self.restarts = 0
        torch.manual_seed(config.seed)
        self.network = self._network(init).to(device).train()
        parameters = self.network.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=1e-4)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, config.learning_rate, total_steps=config.steps + 1, pct_start=0.1
        )
        if self.state_path.exists():
            self._load()

    @property
    def state_path(self) -> Path:
        """Everything that is needed to go on."""
        return self.out / "state.pt"

    def run(self, log_every: int, minutes: float) -> None:
        """Trains until all steps are done or the time is up."""
        end = time.monotonic() + 60 * minutes
        losses, errors, zeros, start = [], [], [], time.monotonic()
        while self.step < self.config.steps and time.monotonic() < end:
            loss, error, zero = self._train_step()
            losses.append(loss), errors.append(error), zeros.append(zero)
            self.step += 1
            if self.step % log_every == 0 or self.step == self.config.steps:
                seconds = (time.monotonic() - start) / len(losses)
                self._log(*(sum(values) / len(values) for values in (losses, errors, zeros)), seconds)
                self.save()
                losses, errors, zeros, start = [], [], [], time.monotonic()
        self.save()

    def save(self) -> None:
        """Writes the state, and the weights as a checkpoint in half precision."""
        state = {
            "config": dataclasses.asdict(self.config),
            "step": self.step,
            "restarts": self.restarts,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        with atomic_path(self.state_path) as temporary:
            torch.save(state, temporary)
        self._save_checkpoint(self.out / "pwcnet-gocor.safetensors")

    def _save_checkpoint(self, path: Path) -> None:
        from safetensors.torch import save_file

        weights = {name: value.half().cpu().contiguous() for name, value in self.network.state_dict().items()}
        facts = {
            "network": self.network.spec.name,
            "iterations": str(self.config.iterations),
            "step": str(self.step),
            "seed": str(self.config.seed),
            "restarts": str(self.restarts),
            "license": "Apache-2.0",
        }
        with atomic_path(path) as temporary:
            save_file(weights, temporary, facts)

    def _network(self, init: Path | None) -> PWCNet_GOCor:
        network = MixedPrecision(self.config.iterations)
        if init:
            trained = load_network(init, self.config.iterations, network="PWCNet_GOCor")
            network.load_state_dict(trained.state_dict())
        else:
            _calm(network)
        return network

    def _load(self) -> None:
        state = torch.load(self.state_path, map_location=self.device, weights_only=True)
        if state["config"] != dataclasses.asdict(self.config):
            raise GocorError(
                self.state_path, "belongs to a run with other options", "give those, or another --out"
            )
        self.step, self.restarts = state["step"], state["restarts"] + 1
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])

    def _train_step(self) -> tuple[float, float, float]:
        first = self.step * self.config.batch
        batch = generate(range(first, first + self.config.batch), self.config.pairs(self.step), self.device)
        flows = self.network(_prepare(batch.reference), _prepare(batch.query))
        loss, error = multiscale_loss(flows, batch.flow)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        if torch.isfinite(norm):  # one wild batch must not end a run of days
            self.optimizer.step()
        self.schedule.step()
        return loss.item(), error.item(), batch.flow.norm(dim=1).mean().item()

    def _log(self, loss: float, error: float, zero: float, seconds: float) -> None:
        row = {
            "step": self.step, "loss": f"{loss:.4f}", "aepe": f"{error:.3f}", "zero_flow_aepe": f"{zero:.3f}",
            "relative": f"{error / zero:.3f}", "learning_rate": f"{self.schedule.get_last_lr()[0]:.2e}",
            "seconds_per_step": f"{seconds:.2f}", "seed": self.config.seed, "restarts": self.restarts,
        }  # fmt: skip
        print(" ".join(f"{name}={value}" for name, value in row.items()), flush=True)
        path = self.out / "log.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)


def multiscale_loss(flows: tuple[Tensor, ...], truth: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted end-point error of all levels.

    Args:
        flows: of the network, coarsest first, in units of 20 px.
        truth: ``(B, 2, H, W)`` in pixels.

    Returns:
        The loss, and the full-size flow's mean end-point error in pixels, without a gradient.
    """
    loss = truth.new_zeros(())
    for weight, flow in zip(LEVEL_WEIGHTS, flows, strict=True):
        target = F.adaptive_avg_pool2d(truth, flow.shape[-2:]) / FLOW_UNIT
        loss = loss + weight * end_point_error(flow, target)
    with torch.no_grad():
        full = F.interpolate(flows[-1] * FLOW_UNIT, truth.shape[-2:], mode="bilinear", align_corners=False)
        return loss, (full - truth).norm(dim=1).mean()


def end_point_error(flow: Tensor, truth: Tensor) -> Tensor:
    """Mean length of the difference, smooth at 0."""
    return ((flow - truth).square().sum(dim=1) + 1e-8).sqrt().mean()


def _prepare(images: Tensor) -> Tensor:
    """uint8 RGB ``(B, 3, H, W)`` as the network takes it: BGR in 0..1."""
    return images.flip(1).float() / 255


def _calm(network: torch.nn.Module) -> None:
    """Flow heads that start near zero: a first estimate of no motion, from which warping can begin."""
    for name, module in network.named_modules():
        if name.startswith("predict_flow") or name == "dc_conv7":
            torch.nn.init.normal_(module.get_parameter("weight"), std=1e-3)


def _plot(log: Path, picture: Path) -> None:
    from matplotlib.figure import Figure

    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([int(row["step"]) for row in rows], [100 * float(row["relative"]) for row in rows])
    axes.set(xlabel="step", ylabel="AEPE in % of the zero flow's", ylim=(0, 110), title="training pairs")
    axes.grid(alpha=0.3)
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, dpi=120)


def _options(config: Config) -> Iterator[str]:
    for field in dataclasses.fields(config):
        yield f"{field.name}={getattr(config, field.name)}"


def main(
    out: Annotated[Path, typer.Option(help="Folder of state, log, plot and checkpoint.")],
    steps: Annotated[int, typer.Option(help="Of the optimiser, in all.")] = Config.steps,
    batch: Annotated[int, typer.Option(help="Pairs in a step.")] = Config.batch,
    crop: Annotated[int, typer.Option(help="Side of the pairs, a multiple of 64.")] = Config.crop,
    displacement: Annotated[float, typer.Option(help="Longest vector at the end, px.")] = Config.displacement,
    learning_rate: Annotated[float, typer.Option(help="Highest.")] = Config.learning_rate,
    seed: Annotated[int, typer.Option(help="Of weights and pairs.")] = Config.seed,
    init: Annotated[Path | None, typer.Option(help="Start from this checkpoint's weights.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda"
    if torch.cuda.is_available()
    else "cpu",
    threads: Annotated[int | None, typer.Option(help="On a CPU; all cores if not given.")] = None,
    minutes: Annotated[float, typer.Option(help="Stop after so long; the next run goes on.")] = math.inf,
    log_every: Annotated[int, typer.Option(help="Steps between two lines of the log.")] = 50,
) -> None:
    """Train, or go on training, until all steps are done."""
    if threads:
        torch.set_num_threads(threads)
    config = Config(steps, batch, crop, displacement, learning_rate, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, out, torch.device(device), init)
    print(f"step {trainer.step} of {steps} on {device}:", *_options(config), flush=True)
    trainer.run(log_every, minutes)
    if (out / "log.csv").exists():
        _plot(out / "log.csv", out / "training.png")


if __name__ == "__main__":
    try:
        typer.run(main)
    except GocorError as error:
        sys.exit(f"error: {error}")
