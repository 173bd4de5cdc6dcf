"""Measuring: interleaved rounds, medians with their spread, processes with what they used."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

LIMIT = 900.0
"""Seconds after which any process that is measured is ended."""


class Unusable(Exception):
    """Something that was to be measured did not do its work; the text says what it said."""


@dataclass(frozen=True)
class Figure:
    """What was measured in all rounds, in one unit."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


@dataclass(frozen=True)
class Ran:
    """A process that has ended well: `seconds` of wall clock, `cpu` seconds of it and its children, `peak` in MB."""

    seconds: float
    cpu: float
    peak: float
    output: bytes


def interleaved(
    count: int, ways: Mapping[str, Callable[[], float]], say: Callable[[str], None]
) -> dict[str, Figure]:
    """Measure each way once per round, so that all see the same machine. A way that fails is said and left out.

    Each round begins with another way.
    """
    values: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(count):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if name not in values:
                continue
            try:
                value = ways[name]()
            except (Unusable, subprocess.TimeoutExpired) as error:
                say(f"{name} is left out: {error}")
                del values[name]
                continue
            values[name].append(value)
            say(f"round {turn + 1}: {name} {value:.4g}")
    return {name: Figure(tuple(found)) for name, found in values.items()}


def ratio(ours: Figure, theirs: Figure) -> Figure:
    """Ours to theirs, round by round."""
    return Figure(tuple(a / b for a, b in zip(ours.values, theirs.values, strict=True)))


def run(
    words: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    out: IO[bytes] | None = None,
    codes: Sequence[int] = (0,),
) -> Ran:
    """Run a process to its end. `out` takes stdout instead of `Ran.output`. Raises Unusable for another exit code."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in words],
        cwd=cwd,
        env=env,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=out or subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        output, errors = process.communicate(stdin or None, LIMIT)
    except BaseException:
        process.kill()
        process.wait()
        raise
    seconds = time.perf_counter() - began
    if process.returncode not in codes:
        last = (errors or output or b"").decode(errors="replace").strip()[-400:]
        raise Unusable(f"{words[0]}: exit {process.returncode}: {last}")
    return Ran(seconds, 0.0, 0.0, output or b"")


def used(pid: int) -> tuple[float, float]:
    """CPU seconds of a living process and its peak of memory in MB."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    status = Path(f"/proc/{pid}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0])
    return ticks / os.sysconf("SC_CLK_TCK"), peak / 1024


def wait_for(condition: Callable[[], object], what: str, limit: float = 120.0, every: float = 0.005) -> None:
    """Look until it is true. Raises Unusable after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise Unusable(f"waited {limit:g} s for {what}")
        time.sleep(every)
