"""The kernels as PTX: one file for each operator, dtype and radius, compiled here and kept in the package.

    python -m gocor.plugins.ptx --write     compile all variants into plugins/ptx/ (make ptx)
    python -m gocor.plugins.ptx --check     compile all and compare with what is there

Both need NVRTC 12.4 and a source tree; ``read`` needs neither. PTX for compute_80 runs on every NVIDIA GPU
from Ampere on: the driver translates it when an engine or our plugin library is loaded.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gocor.core.errors import ConfigError, GocorError, ModelError
from gocor.core.files import write_text
from gocor.plugins.launch import SUFFIXES, entry_point
from gocor.plugins.nvrtc import Nvrtc
from gocor.plugins.registry import KERNELS
from gocor.plugins.schema import MAX_KERNEL_RADIUS, OpSchema

PLUGINS = Path(__file__).parent
FOLDER = PLUGINS / "ptx"
INDEX = FOLDER / "index.json"
OLDEST_SM = 80
OLDEST_CUDA = 12040  # whose drivers know PTX 8.4, which NVRTC 12.4 writes
OPTIONS = (f"--gpu-architecture=compute_{OLDEST_SM}", "--std=c++17")
REMEDY = 'reinstall gocor-deploy, or run "make ptx" in its source tree'


@dataclass(frozen=True)
class Variant:
    """One compiled kernel.

    Attributes:
        schema: the operator.
        dtype: of its inputs and its output, ``float32`` or ``float16``.
        radius: 1..8.
    """

    schema: OpSchema
    dtype: str
    radius: int

    def __post_init__(self) -> None:
        if self.dtype not in SUFFIXES:
            raise ConfigError(
                f"dtype of {self.schema.name}", f"is {self.dtype}", f"one of {', '.join(SUFFIXES)}"
            )
        self.schema.check_kernel_radius(self.radius)

    @property
    def kernel(self) -> str:
        """Entry point in the PTX, such as ``gocor_local_correlation_f16_r4``."""
        return entry_point(self.schema.torch_name, self.dtype, self.radius)

    @property
    def name(self) -> str:
        """Of the file without suffix, such as ``local_correlation_f16_r4``."""
        return self.kernel.removeprefix("gocor_")

    @property
    def path(self) -> Path:
        """Of the PTX."""
        return FOLDER / f"{self.name}.ptx"


def read(operator: str, dtype: str, radius: int) -> tuple[str, str]:
    """The compiled kernel of an operator.

    Args:
        operator: such as ``LocalCorrelation``.
        dtype: ``float32`` or ``float16``.
        radius: 1..8.

    Returns:
        Name of the entry point, and PTX.

    Raises:
        ConfigError: there is no kernel for this dtype or radius.
        ModelError: the file in the package is missing or was changed.
    """
    variant = Variant(KERNELS[operator], dtype, radius)
    try:
        text = variant.path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ModelError(variant.path, "cannot be read", REMEDY) from error
    if _sha256(text) != index()["variants"].get(variant.name):
        raise ModelError(variant.path, "is not the PTX that this package was made with", REMEDY)
    return variant.kernel, text


@cache
def index() -> dict[str, Any]:
    """What is in ``plugins/ptx/``: SHA-256 of each variant, and of the sources they were compiled from.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        content: dict[str, Any] = json.loads(INDEX.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(INDEX, "cannot be read", REMEDY) from error
    return content


def variants() -> Iterator[Variant]:
    """All that are shipped."""
    for schema in KERNELS.values():
        for dtype in SUFFIXES:
            for radius in range(1, MAX_KERNEL_RADIUS + 1):
                yield Variant(schema, dtype, radius)


def source_hashes() -> dict[str, str]:
    """SHA-256 of every file that the PTX depends on, by its path under ``plugins/``."""
    paths = [f"{schema.torch_name}/kernel.cuh" for schema in KERNELS.values()]
    paths += sorted(path.relative_to(PLUGINS).as_posix() for path in (PLUGINS / "native").glob("*.cuh"))
    return {path: _sha256((PLUGINS / path).read_text(encoding="utf-8")) for path in paths}


def compile_variant(variant: Variant, nvrtc: Nvrtc) -> str:
    """PTX of a variant, the same bytes on every machine.

    Raises:
        ModelError: the kernel does not compile.
    """
    source = f"{variant.schema.torch_name}/kernel.cuh"
    macros = (f"-DGOCOR_RADIUS={variant.radius}", f"-DGOCOR_HALF={int(variant.dtype == 'float16')}")
    options = (*OPTIONS, *macros, f"-I{PLUGINS}")
    text = nvrtc.compile((PLUGINS / source).read_text(encoding="utf-8"), source, options)
    # Comments name the build of the compiler; with them and the indents a tenth of the size goes.
    lines = (line.strip() for line in text.splitlines())
    body = "\n".join(line for line in lines if line and not line.startswith("//"))
    return f"// {source} compiled by NVRTC 12.4 (make ptx)\n{body}\n"


def write() -> int:
    """Compiles all variants into ``plugins/ptx/``; gives their number.

    Files of variants that are no more are removed. The index comes last, so that an interrupted run is
    noticed by ``read``.
    """
    nvrtc = Nvrtc()
    compiled = {variant.path: compile_variant(variant, nvrtc) for variant in variants()}
    for path in set(FOLDER.glob("*.ptx")) - set(compiled):
        path.unlink()
    for path, text in compiled.items():
        write_text(path, text)
    hashes = {path.stem: _sha256(text) for path, text in compiled.items()}
    write_text(INDEX, json.dumps({"sources": source_hashes(), "variants": hashes}, indent=2) + "\n")
    index.cache_clear()
    return len(compiled)


def outdated() -> list[str]:
    """Names of variants whose committed PTX is not what the sources compile to now."""
    nvrtc = Nvrtc()
    return [v.name for v in variants() if _or_none(v.path) != compile_variant(v, nvrtc)]


def stale_sources() -> list[str]:
    """Sources that changed after the PTX was made; needs no compiler."""
    recorded = index()["sources"]
    return [path for path, sha256 in source_hashes().items() if recorded.get(path) != sha256]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gocor.plugins.ptx", description="The kernels as PTX.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="compile all variants into plugins/ptx/")
    action.add_argument("--check", action="store_true", help="fail unless plugins/ptx/ is up to date")
    try:
        if parser.parse_args(arguments).write:
            print(f"{write()} variants in {FOLDER}")
            return 0
        if changed := [*outdated(), *stale_sources()]:
            print(f"not up to date: {', '.join(changed)}; run: make ptx", file=sys.stderr)
            return 1
    except GocorError as error:
        print(error, file=sys.stderr)
        return 2
    print("up to date")
    return 0


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _or_none(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
