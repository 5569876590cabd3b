"""Reads checkpoints of the four networks, never executing what a pickle holds."""

import hashlib
import logging
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gocor.core.errors import CheckpointError, ConfigError
from gocor.core.files import sha256
from gocor.core.reading import CHECKPOINT, check_size
from gocor.export.networks import DEFAULT_ITERATIONS, Network, create_network
from gocor.export.networks.info import CheckpointInfo
from gocor.export.pickle_check import NUMPY_NUMBERS, check_pickle
from gocor.export.weights import BUILT_IN, checkpoint_path
from gocor.runtime.spec import SPECS, network_spec

logger = logging.getLogger("gocor")
SAFE_TORCH = (2, 10)  # the first whose weights_only holds what it promises

SHOWN_KEYS = 3  # of each kind in an error about keys
PICKLE_STARTS = (b"PK", b"\x80")  # of torch.save's files, since 1.6 and before
HIGHEST_COUNT = 100  # a larger number of "iterations" in a file counts training steps
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64)


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        path: of the file.
        sha256: of the file.
        tensors: by ``state_dict`` key, without a ``module.`` prefix.
        global_iterations: count of the global GOCor in training, where the file says so.
        local_iterations: count of the local GOCor in training, where the file says so.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    global_iterations: int | None = None
    local_iterations: int | None = None


def load_network(
    path: str | Path,
    iterations: int | None = None,
    *,
    global_iterations: int | None = None,
    local_iterations: int | None = None,
    network: str | None = None,
) -> Network:
    """Loads a checkpoint into its network, ready for inference.

    Args:
        path: ``.pth``, ``.pth.tar`` or ``.safetensors``; the tensors bare or under ``state_dict``, with or
            without a ``module.`` prefix, in any floating dtype. Or the name of a built-in checkpoint,
            ``pwcnet-gocor-demo``.
        iterations: of both GOCor modules; by default what the checkpoint was trained with where it says so,
            else 3. Without effect on a network that has none, which is noted.
        global_iterations: of the global GOCor alone.
        local_iterations: of the local GOCor alone.
        network: name of the network; recognised from the keys when None.

    Returns:
        The network in float32 on the CPU, in evaluation mode, with its origin as ``network.info``.

    Raises:
        CheckpointError: the file cannot be read, or does not fit the network.
        ConfigError: the network is unknown or a count negative.
    """
    if iterations is not None and iterations < 0:
        raise ConfigError("--iterations", f"is {iterations}", "a whole number from 0")
    checkpoint = read_checkpoint(path)
    name = network_spec(network).name if network else recognize(checkpoint)
    global_count = _first(global_iterations, iterations)
    local_count = _first(local_iterations, iterations)
    _note_iterations(name, checkpoint, global_count, local_count, global_iterations is not None)
    module = create_network(
        name,
        _first(global_count, checkpoint.global_iterations, DEFAULT_ITERATIONS),
        _first(local_count, checkpoint.local_iterations, DEFAULT_ITERATIONS),
    )
    if problems := _mismatch(checkpoint.tensors, name):
        raise CheckpointError(path, f"does not fit {name} ({problems})", _fitting(checkpoint, name))
    if broken := next((key for key, value in checkpoint.tensors.items() if not value.isfinite().all()), None):
        raise CheckpointError(
            path, f"has NaN or infinite values in {broken}", "a checkpoint from before that"
        )
    module.load_state_dict(dict(checkpoint.tensors), strict=True)
    module.info = CheckpointInfo(
        checkpoint.path,
        checkpoint.sha256,
        weights_sha256(module),
        checkpoint.global_iterations,
        checkpoint.local_iterations,
    )
    return module.eval()


def seeded_network(name: str, iterations: int = DEFAULT_ITERATIONS, seed: int = 0) -> Network:
    """A network with reproducible untrained weights: its flow means nothing, its arithmetic is real."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = create_network(name, iterations, iterations).eval()
    module.info = CheckpointInfo(None, "", weights_sha256(module))
    return module


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint's tensors and the iteration counts that it records.

    Raises:
        CheckpointError: the file is missing, damaged, no checkpoint, or a pickle that wants to run code.
    """
    path = checkpoint_path(path)
    if not path.is_file():
        got = "is a folder" if path.is_dir() else "no such file"
        raise CheckpointError(path, got, f"give a checkpoint file, or {' or '.join(BUILT_IN)}")
    named, facts = _read(path)
    if not named or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in named.items()):
        raise CheckpointError(path, "holds no state_dict", "tensors by name, bare or under 'state_dict'")
    _check_tensors(path, named)
    tensors = {key.removeprefix("module."): value for key, value in named.items()}
    if len(tensors) < len(named):
        twice = next(key for key in named if f"module.{key}" in named)
        raise CheckpointError(path, f"holds both {twice} and module.{twice}", "one of them")
    both = _count(facts, "iterations")
    return Checkpoint(
        path,
        sha256(path),
        tensors,
        _first(_count(facts, "global_iterations"), both),
        _first(_count(facts, "local_iterations"), both),
    )


def recognize(checkpoint: Checkpoint) -> str:
    """Name of the network whose keys and shapes are the checkpoint's.

    Raises:
        CheckpointError: there is none; the text names the nearest and the first differences.
    """
    problems = {name: _mismatch(checkpoint.tensors, name) for name in SPECS}
    for name, text in problems.items():
        if not text:
            return name
    nearest = min(SPECS, key=lambda name: len(_shape_items(checkpoint.tensors) ^ set(_shapes(name).items())))
    raise CheckpointError(
        checkpoint.path,
        f"is no checkpoint of a network known here; nearest is {nearest} ({problems[nearest]})",
        f"known are {', '.join(SPECS)}",
    )


def weights_sha256(network: torch.nn.Module) -> str:
    """SHA-256 of a network's weights by content: the same for every file format."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[Any, Any], Mapping[str, Any]]:
    """What a file holds by name, and what it says besides; the kind of file is in its first bytes."""
    try:
        check_size(path, CHECKPOINT, CheckpointError)
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        got = f"cannot be read ({error.strerror or error})"
        raise CheckpointError(path, got, "a file that you may read") from error
    if path.suffix == ".safetensors" or head[8:] == b"{":  # JSON, after eight bytes with its length
        return _read_safetensors(path)
    if head.startswith(PICKLE_STARTS):  # an image or text would confuse torch's messages
        return _read_pickle(path)
    raise CheckpointError(path, "is no checkpoint", "a .pth, .pth.tar or .safetensors file")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            path, f"is no readable safetensors file ({error})", "download or copy it again"
        ) from error


def _read_pickle(path: Path) -> tuple[dict[Any, Any], Mapping[str, Any]]:
    if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < SAFE_TORCH:
        text = "%s: PyTorch %s can be made to corrupt memory by a checkpoint (CVE-2026-24747); 2.10 cannot"
        logger.warning(text, path, torch.__version__)
    try:
        check_pickle(path)
        with torch.serialization.safe_globals(NUMPY_NUMBERS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error, if there is one, says it
            content = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(path, "is no checkpoint", "a .pth, .pth.tar or .safetensors file") from error
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError, … for what is damaged
        reason = re.split(r"\. |\n", str(error))[0][:300] or type(error).__name__  # advice follows, not ours
        raise CheckpointError(
            path, f"is damaged or no checkpoint ({reason})", "download or copy it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(path, f"holds a {type(content).__name__}", "tensors by name, or a 'state_dict'")
    content = _plain(content)
    nested = content.get("state_dict")
    return (_plain(nested), content) if isinstance(nested, dict) else (content, {})


def _plain(content: dict[Any, Any]) -> dict[Any, Any]:
    """Without what a pickle may have put over an OrderedDict's own methods."""
    return dict(dict.items(content))


def _check_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuses what no network's weights are, such as sparse, quantised or complex tensors."""
    for key, value in tensors.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.dtype not in _DTYPES:
            layout = "" if value.layout == torch.strided else f"{value.layout} of "
            got = f"holds as {key} a tensor of {layout}{value.dtype}".replace("torch.", "")
            raise CheckpointError(path, got, "dense tensors of 16, 32 or 64 bits")


def _count(facts: Mapping[str, Any], name: str) -> int | None:
    """An iteration count among a file's facts; safetensors keeps them as text."""
    value = facts.get(name)
    if not isinstance(value, int | str | np.number):  # the text of lists in lists may have no end
        return None
    text = str(value) if not isinstance(value, int) or abs(value) <= HIGHEST_COUNT else ""
    decimal = text.isascii() and text.isdecimal() and len(text) <= len(str(HIGHEST_COUNT))
    return int(text) if decimal and int(text) <= HIGHEST_COUNT else None


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _note_iterations(
    name: str,
    checkpoint: Checkpoint,
    global_count: int | None,
    local_count: int | None,
    global_alone: bool,
) -> None:
    spec = SPECS[name]
    if not spec.local_gocor:
        if global_count is not None or local_count is not None:
            logger.warning("%s has no GOCor module: the number of iterations has no effect", name)
        return
    if not spec.global_gocor and global_alone:
        logger.warning("%s has no global GOCor: its number of iterations has no effect", name)
    counts = [("local", local_count, checkpoint.local_iterations)]
    if spec.global_gocor:
        counts.append(("global", global_count, checkpoint.global_iterations))
    for kind, wanted, trained in counts:
        if wanted is not None and trained is not None and wanted != trained:
            logger.warning(
                "%s was trained with %d %s iterations and will run with %d, which costs accuracy",
                *(checkpoint.path.name, trained, kind, wanted),
            )


@lru_cache
def _shapes(name: str) -> Mapping[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in create_network(name).state_dict().items()}


def _shape_items(tensors: Mapping[str, Tensor]) -> set[tuple[str, tuple[int, ...]]]:
    return {(key, tuple(value.shape)) for key, value in tensors.items()}


def _mismatch(tensors: Mapping[str, Tensor], name: str) -> str:
    """What keeps tensors from loading strictly into a network; empty if nothing does."""
    shapes = _shapes(name)
    misshaped = (
        f"{key} {list(tensors[key].shape)} instead of {list(shape)}"
        for key, shape in shapes.items()
        if key in tensors and tuple(tensors[key].shape) != shape
    )
    kinds = {
        "missing": (key for key in shapes if key not in tensors),
        "unexpected": (key for key in tensors if key not in shapes),
        "misshaped": misshaped,
    }
    return "; ".join(text for kind, keys in kinds.items() if (text := _first_few(kind, keys)))


def _first_few(kind: str, keys: Iterable[str]) -> str:
    found = list(keys)
    if not found:
        return ""
    rest = f" and {len(found) - SHOWN_KEYS} more" if len(found) > SHOWN_KEYS else ""
    return f"{kind}: {', '.join(found[:SHOWN_KEYS])}{rest}"


def _fitting(checkpoint: Checkpoint, name: str) -> str:
    fitting = next(
        (other for other in SPECS if other != name and not _mismatch(checkpoint.tensors, other)), None
    )
    return f"it fits {fitting}: leave out --network" if fitting else f"a checkpoint of {name}"
