"""Looking at processes through /proc: who descends from whom, who carries a variable, who still lives."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def wait_until(condition: Callable[[], object], what: str, timeout: float = 10.0) -> None:
    """Wait until `condition()` is true; AssertionError with `what` and the last value seen if it never is."""
    deadline = time.monotonic() + timeout
    while not (seen := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s for {what}; last seen: {seen!r}")
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def command_of(pid: int) -> str:
    """What `ps` would print for it, or its bare number when it has gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        words = ""
    return f"{pid} {words.strip()[:100]}".strip()


def descendants(pid: int) -> list[int]:
    """All living processes below `pid`, parents before their children."""
    children: dict[int, list[int]] = {}
    for other in _all_pids():
        with contextlib.suppress(OSError, IndexError, ValueError):
            parent = int(
                Path(f"/proc/{other}/stat").read_text(errors="replace").rpartition(")")[2].split()[1]
            )
            children.setdefault(parent, []).append(other)
    found = list(children.get(pid, ()))
    for child in found:
        found.extend(children.get(child, ()))
    return [p for p in found if alive(p)]


def carriers(variable: str) -> list[int]:
    """Living processes (not this one) started with `variable` ("NAME=value") in their environment."""
    wanted = b"\0" + variable.encode() + b"\0"
    found = []
    for pid in _all_pids():
        with contextlib.suppress(OSError):
            if (
                wanted in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
                and pid != os.getpid()
                and alive(pid)
            ):
                found.append(pid)
    return found


def kill(pids: Iterable[int], sig: int = signal.SIGKILL) -> None:
    """Signal each of them that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sig)


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 (faster, and no Path needed)
