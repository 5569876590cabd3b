"""Feeds damaged files to readers, each reader in a process of its own that may take only so much memory.

    python -m fuzz                        every reader: 100,000 inputs, or a minute
    python -m fuzz NAME --only 1234       one input of one reader, with the traceback, kept in a file
    python -m fuzz --count 1000 --json    what the tests run

A reader passes if each input is either read or refused with a GocorError of one line: no other exception, no
signal, not more than a few seconds, not more memory than ``MOST_MEMORY``.
"""

import argparse
import contextlib
import dataclasses
import faulthandler
import json
import logging
import mmap
import os
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.readers import READERS, Reader
from gocor.core.errors import GocorError

MOST_MEMORY = 512 << 20  # more than at the start, in bytes of RAM
MOST_OF_LIBRARIES = 2 << 30  # FFmpeg takes 800 MiB for a header that says so, and then refuses the file
MOST_ADDRESSES = 8 << 30  # more than at the start; threads and libraries reserve more than they use
MOST_SECONDS = 10  # of CPU time, for one input
MOST_WAITED = 300  # seconds by the clock, for one that waits for what never comes
SHOWN = 5  # failures of a reader


@dataclass
class Outcome:
    """What became of the inputs of a reader, and how much CPU time that took."""

    name: str
    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", help="readers, all by default: " + "; ".join(READERS))
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60, help="of CPU time for each reader")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", type=int, help="number of the one input")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.names) - set(READERS):
        parser.error(f"no reader {min(unknown)!r}; there are: {'; '.join(READERS)}")
    if options.only is not None:
        if len(options.names) != 1:
            parser.error("--only is the number of an input of one reader, and wants its name")
        sys.exit(show(READERS[options.names[0]], options.only))
    outcomes = []
    for name in options.names or READERS:
        outcomes.append(fuzz(READERS[name], options.first, options.count, options.seconds))
        if not options.json:
            print(in_words(outcomes[-1]), flush=True)
    if options.json:
        print(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes]))
    sys.exit(any(outcome.failures for outcome in outcomes))


def in_words(outcome: Outcome) -> str:
    """A line, and one for each failure."""
    total = outcome.read + outcome.refused
    said = f"{outcome.name}: {total} inputs in {outcome.seconds:.0f} s, {outcome.refused} refused, "
    return "\n  ".join([said + f"{len(outcome.failures)} failures", *outcome.failures])


def fuzz(reader: Reader, first: int, count: int, seconds: float) -> Outcome:
    """Reads damaged inputs in a child process, and goes on after one that ended it."""
    with folder() as place:
        samples = make_samples(reader, place)
        total = Outcome(reader.name)
        before = seconds_of_children()
        end = first + count
        while first < end and len(total.failures) < SHOWN:
            if (left := seconds + before - seconds_of_children()) <= 0:
                break
            outcome, done, status = in_child(reader, samples, range(first, end), left, place)
            total.read, total.refused = total.read + outcome.read, total.refused + outcome.refused
            total.failures += outcome.failures
            if status == 0:
                break
            total.failures.append(f"--only {done}: ended the process with {signal_name(status)}")
            first = done + 1
        total.seconds = seconds_of_children() - before
    return total


def in_child(
    reader: Reader, samples: list[bytes], numbers: range, seconds: float, place: Path
) -> tuple[Outcome, int, int]:
    """The outcome in a forked process, the number it was at last, and its exit status."""
    shared = mmap.mmap(-1, 1 << 16)  # an outcome's length, the current number, the outcome
    child = os.fork()
    if child == 0:
        status = 1
        try:
            limit_resources()
            outcome = Outcome(reader.name)
            run(reader, samples, numbers, seconds, place, outcome, shared)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    read, refused, number, length = struct.unpack_from("<4q", shared)
    failures = json.loads(shared[32 : 32 + length] or b"[]")
    return Outcome(reader.name, read, refused, 0.0, failures), number, status


def run(
    reader: Reader,
    samples: list[bytes],
    numbers: range,
    seconds: float,
    place: Path,
    outcome: Outcome,
    shared: mmap.mmap,
) -> None:
    """Reads damaged inputs, and says in shared memory how far it got."""
    seen: set[str] = set()
    end = time.process_time() + seconds
    memory = peak_memory()
    for number in numbers:
        struct.pack_into("<3q", shared, 0, outcome.read, outcome.refused, number)
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, MOST_WAITED)
        failure = try_input(reader, reader.damaged(samples, number), place, outcome)
        if (now := peak_memory()) - memory > (MOST_OF_LIBRARIES if reader.library else MOST_MEMORY):
            failure = failure or f"took {(now - memory) >> 20} MiB"
            memory = now
        if failure and re.sub(r"\d+", "", failure) not in seen:
            seen.add(re.sub(r"\d+", "", failure))
            outcome.failures.append(f"--only {number}: {failure}"[:1000])
            text = json.dumps(outcome.failures[:SHOWN]).encode()
            shared[32 : 32 + len(text)] = text
            struct.pack_into("<q", shared, 24, len(text))
        if time.process_time() > end or len(outcome.failures) >= SHOWN:
            break
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    struct.pack_into("<3q", shared, 0, outcome.read, outcome.refused, numbers[-1])


def try_input(reader: Reader, data: bytes, place: Path, outcome: Outcome) -> str:
    """Reads one input; empty if that went as it should."""
    path = place / f"input{reader.suffix}"
    path.write_bytes(data)
    try:
        reader.read(path)
    except GocorError as error:
        outcome.refused += 1
        if "\n" in str(error) or not str(error).isprintable():
            return f"a message of several lines: {str(error)!r}"
        causes, cause = [], error.__cause__
        while cause is not None:
            causes, cause = [*causes, cause], cause.__cause__
        if any(isinstance(cause, MemoryError) and not from_parser(cause) for cause in causes):
            return f"memory ran out: {error}"
        return ""
    except BaseException as error:
        outcome.read += 1
        last = traceback.extract_tb(error.__traceback__)[-1]
        ours = [f for f in traceback.extract_tb(error.__traceback__) if "/tests/" not in f.filename]
        near = next((f for f in reversed(ours) if "site-packages" not in f.filename), last)
        place_in_code = f"{Path(near.filename).name}:{near.lineno} {near.name}"
        return f"{type(error).__name__}: {str(error)[:200]} ({place_in_code})"
    outcome.read += 1
    return ""


def from_parser(error: BaseException) -> bool:
    """Python's parser calls it a lack of memory if source is nested too deeply; NumPy's headers are such."""
    return Path(traceback.extract_tb(error.__traceback__)[-1].filename).name == "ast.py"


def show(reader: Reader, number: int) -> int:
    """Reads one input in this process, as if it came from a user."""
    with folder() as place:
        data = reader.damaged(make_samples(reader, place), number)
    kept = Path(tempfile.mkdtemp(prefix="fuzz-")) / f"input{reader.suffix}"
    kept.write_bytes(data)
    print(f"{kept} ({len(data)} bytes)", file=sys.stderr)
    try:
        print(repr(reader.read(kept))[:500])
    except GocorError as error:
        print(f"{type(error).__name__}: {error}")
    return 0


def make_samples(reader: Reader, place: Path) -> list[bytes]:
    """Content of the valid files. Each is read once: a reader that refuses what is valid tests nothing."""
    made = place / "samples"
    made.mkdir()
    samples = [path.read_bytes() for path in reader.samples(made)]
    for sample in samples:
        (path := place / f"input{reader.suffix}").write_bytes(sample)
        reader.read(path)
    return samples


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder in memory, if there is such a thing."""
    memory = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        yield place
    finally:
        shutil.rmtree(place)


def limit_resources() -> None:
    """Makes too much of anything end this process."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = 1 << 20
    used = int(re.search(r"VmSize:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10  # type: ignore[index]
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_ADDRESSES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    # What the C library does with the signal comes second: it ends the process, even one that hangs in C.
    faulthandler.register(signal.SIGPROF, chain=True)
    faulthandler.register(signal.SIGALRM, chain=True)
    logging.disable()
    warnings.simplefilter("ignore")


def seconds_of_children() -> float:
    """CPU time of those that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peak_memory() -> int:
    """Bytes of RAM that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def signal_name(status: int) -> str:
    """Of a status of ``waitpid``."""
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.waitstatus_to_exitcode(status)}"


if __name__ == "__main__":
    main()
