"""For the tests of the queue file: a small engine with a ledger in memory, and faults in the calls that write."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pegasus_py.core.entries import consumed_record
from pegasus_py.core.model import Task
from pegasus_py.store import disk
from pegasus_py.store.queuefile import QueueFile

CALLS = ("write", "pwrite", "fsync", "fdatasync", "ftruncate", "rename", "unlink")
FILLER = re.compile(rb"(?:^|(?<=\A\xef\xbb\xbf))#~(?:~? [0-9a-f]{8})? *\r?\n", re.MULTILINE)


class Killed(BaseException):
    """The process ends here."""


class Faults:
    """Kills at the `at`-th call that changes files, before it or, if `torn`, in it; nothing works after that."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, torn: bool) -> None:
        self.left = at
        self.torn = torn
        self.dead = False
        for name in CALLS:
            patch.setattr(disk, name, self._wrapped(name, getattr(disk, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if not self.dead:
                self.left -= 1
                if self.left != 0:
                    return real(*args)
                if self.torn and name in ("write", "pwrite"):
                    real(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:])
            self.dead = True
            raise Killed

        return call


class State(NamedTuple):
    """The bytes of both files, and the queue file's inode."""

    queue: bytes
    consumed: bytes
    inode: int


class Engine:
    """Pops as the real engine does, keeping what a ledger would keep over a crash."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tasks: list[Task] = []
        self.records: list[str] = []
        self.blobs: list[bytes] = []
        self.queue = QueueFile(path)
        self.state = path.parent / ".pegasus" / path.name
        self.state.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.queue.close()

    def pop(self, most: int = 1) -> int:
        with self.queue.hold() as taking:
            tasks: list[Task] = []
            while len(tasks) < most and (task := taking.peek()) is not None:
                taking.take()
                tasks.append(task)
            if not tasks:
                return 0
            first = len(self.records)
            records = [consumed_record(task, f"job {first + i}") for i, task in enumerate(tasks)]
            blob = taking.pop_record(records)
            if not taking.follows:
                self.queue.sync(note=False)
                self.blobs = []
            # From here on the ledger has it.
            self.tasks += tasks
            self.records += records
            self.blobs.append(blob)
            taking.apply()
        return len(tasks)

    def pop_all(self, batches: list[int]) -> list[State]:
        """Pop so many tasks each time; the states of the files since what is surely on the disk, which is the first."""
        states = [self.state_now()]
        for most in batches:
            before = self.state_now()
            if self.pop(most) and len(self.blobs) == 1:
                # It did not follow, so all before it was flushed.
                states = [before]
            states.append(self.state_now())
        return states

    def state_now(self) -> State:
        consumed = self.path.with_name("consumed.yaml")
        return State(
            self.path.read_bytes(),
            consumed.read_bytes() if consumed.exists() else b"",
            self.path.stat().st_ino,
        )

    def restart(self) -> None:
        self.queue.close()
        self.queue = QueueFile(self.path)
        self.queue.recover(self.blobs)

    def check_consumed(self) -> None:
        """consumed.yaml has each record once, in order."""
        path = self.path.parent / "consumed.yaml"
        assert (path.read_text() if path.exists() else "") == "".join(self.records)


def tasks_in(path: Path) -> list[Task]:
    return [task for entry in QueueFile(path).entries() for task in entry.tasks()]


def without_filler(data: bytes) -> bytes:
    return FILLER.sub(b"", data)


def leftovers(directory: Path) -> list[str]:
    """Names that must not stay."""
    known = {"queue.yaml", "queue.yaml.lock", "consumed.yaml", ".pegasus"}
    return sorted(p.name for p in directory.iterdir() if p.name not in known)
