"""The ledger when the disk is full or refuses, and when its controller is killed in the middle of a commit."""

from __future__ import annotations

import itertools
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pegasus_py.core.model import Attempt, End, Job, JobState, Task
from pegasus_py.errors import StorageError
from pegasus_py.store.batch import Batch, Ended
from pegasus_py.store.ledger import Ledger

pytestmark = pytest.mark.usefixtures("local")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


def starting(ledger: Ledger, number: int, command: str = "true") -> Batch:
    job = Job(number, Task(command), command, "n")
    return Batch(jobs=[job], started=[Attempt(job, 1, "n", ledger.queue_id, "n")])


def failing(attempts: list[Attempt]) -> Batch:
    end = End(JobState.FAILED, 1, "a reason that makes the row longer than it was", 1.5)
    return Batch(ended=[Ended(attempt, end, JobState.FAILED) for attempt in attempts])


@contextmanager
def files_cannot_grow_beyond(size: int) -> Iterator[None]:
    """Writes past `size` bytes of a file fail as on a full disk; those before it work."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def fill(ledger: Ledger) -> int:
    """Start jobs until one is refused; its number."""
    for number in range(ledger.next_job_id, 10**6):
        try:
            ledger.commit(starting(ledger, number, "x" * 500))
        except StorageError:
            return number
    raise AssertionError("the disk never was full")


def check_full(ledger: Ledger) -> None:
    """On a disk that is full: starts fail and leave nothing, ends are all recorded; the state stays whole."""
    refused = fill(ledger)
    assert ledger.next_job_id == refused
    attempts = ledger.open_attempts()
    assert len(attempts) == refused - 1
    mixed = starting(ledger, refused, "x" * 500)
    mixed.ended = failing(attempts).ended
    with pytest.raises(StorageError):
        ledger.commit(mixed)
    assert ledger.open_attempts() == attempts
    ledger.commit(mixed.without_starts())
    assert ledger.open_attempts() == []
    assert ledger.uncleared() == attempts
    # The space that is left is for ends, however much of it there is.
    with pytest.raises(StorageError):
        ledger.commit(starting(ledger, refused))
    ledger.set_cleared([attempt.id for attempt in attempts])
    assert ledger.uncleared() == []


def test_ends_are_recorded_when_files_cannot_grow_and_starts_are_not(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(path) as ledger:
        ledger.begin_run("queue")
        with files_cannot_grow_beyond(path.stat().st_size + 64 * 1024):
            check_full(ledger)
        ledger.commit(starting(ledger, ledger.next_job_id))
        assert len(ledger.open_attempts()) == 1


def test_without_space_kept_back_ends_could_not_be_recorded(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(path, ballast=0) as ledger:
        ledger.begin_run("queue")
        with files_cannot_grow_beyond(path.stat().st_size + 96 * 1024):
            fill(ledger)
            with pytest.raises(StorageError):
                ledger.commit(failing(ledger.open_attempts()))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@as_root
def test_ends_are_recorded_on_a_full_disk_and_starts_go_on_when_there_is_room(small_disk: Path) -> None:
    other = small_disk / "other"
    with Ledger.open(small_disk / "ledger.db", ballast=40_000) as ledger:
        ledger.begin_run("queue")
        other.write_bytes(b"x" * 40_000)
        with pytest.raises(StorageError, match="disk is full"):
            for number in range(1, 10_000):
                ledger.commit(starting(ledger, number, "x" * 500))
        eater = (small_disk / "eats what is left, as output of jobs would").open("wb", buffering=0)
        with eater, pytest.raises(OSError, match="No space"):
            while True:
                eater.write(b"x" * 4096)
        check_full(ledger)
        other.unlink()
        ledger.commit(starting(ledger, ledger.next_job_id))
    with Ledger.open(small_disk / "ledger.db", ballast=40_000) as ledger:
        assert len(ledger.open_attempts()) == 1


@as_root
def test_a_ledger_on_a_disk_that_is_full_from_the_start_says_so(small_disk: Path) -> None:
    (small_disk / "other").write_bytes(b"x" * 200_000)
    with pytest.raises(StorageError, match="disk is full"), Ledger.open(small_disk / "ledger.db") as ledger:
        ledger.begin_run("queue")


@as_root
def test_a_disk_that_becomes_read_only_is_an_error_and_nothing_is_lost(small_disk: Path) -> None:
    with Ledger.open(small_disk / "ledger.db", ballast=40_000) as ledger:
        ledger.begin_run("queue")
        ledger.commit(starting(ledger, 1))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with Ledger.open(small_disk / "ledger.db", create=False) as ledger:
        assert len(ledger.open_attempts()) == 1
        with pytest.raises(StorageError, match="writable"):
            ledger.begin_run("queue")


@not_as_root
def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="Permission denied"):
            Ledger.open(tmp_path / "ledger.db")
    finally:
        tmp_path.chmod(0o700)


RETRIER = """
import os, sys
from pathlib import Path
from pegasus_py.errors import StorageError
from tests.store.test_ledger_faults import starting, failing
from pegasus_py.store.ledger import Ledger

with Ledger.open(Path(sys.argv[1]), ballast=40_000) as ledger:
    ledger.begin_run("queue")
    previous = ledger.open_attempts()
    for number in range(ledger.next_job_id, ledger.next_job_id + 4):
        for _ in range(3):
            batch = starting(ledger, number)
            batch.ended = failing(previous).ended
            batch.pop = b"%d" % number
            try:
                ledger.commit(batch)
            except StorageError as error:
                print("failed", number, error, flush=True)
            else:
                print("done", number, flush=True)
                break
        else:
            break
        previous = batch.started
"""


def test_what_is_there_though_it_was_said_to_have_failed_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(path, ballast=0) as ledger:
        ledger.begin_run("queue")
        with monkeypatch.context() as patch:
            # As on a disk that fails in the last step of a commit, and in all that would make sure of it.
            patch.setattr(ledger, "_is_recorded", lambda serial: False)
            patch.setattr(ledger, "_transaction", lambda: fails_at_the_end(ledger))
            with pytest.raises(StorageError, match="disk does not read or write"):
                ledger.commit(starting(ledger, 1))
        with pytest.raises(StorageError, match="start again"):
            ledger.commit(starting(ledger, 2))
        ledger.begin_run("queue")
        assert [attempt.job.id for attempt in ledger.open_attempts()] == [1]
        ledger.commit(starting(ledger, 2))


@contextmanager
def fails_at_the_end(ledger: Ledger) -> Iterator[None]:
    with Ledger._transaction(ledger):
        yield
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    raise error


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace to let system calls fail")
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize(("call", "step"), [("pwrite64", 17), ("fdatasync", 3)])
@pytest.mark.timeout(900)
def test_a_call_that_fails_fails_a_commit_or_nothing(
    tmp_path: Path, as_here: str, call: str, step: int, error: str
) -> None:
    """Fail the N-th call, for many N: what was said to be done is there, and nothing else."""
    for number in itertools.count(1, 1 if os.environ.get("PEGASUS_TORTURE") == "full" else step):
        path = tmp_path / f"{number}.db"
        with Ledger.open(path, ballast=40_000) as ledger:
            ledger.begin_run("queue")
            ledger.commit(starting(ledger, 1))
        trace = ["-f", "-qq", "-o", str(tmp_path / "trace"), "-e", f"trace={call}"]
        trace += ["-e", f"inject={call}:error={error}:when={number}"]
        said = subprocess.run(
            ["strace", *trace, sys.executable, "-c", as_here + RETRIER, str(path)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        done = [int(line.split()[1]) for line in said.stdout.splitlines() if line.startswith("done")]
        with Ledger.open(path) as ledger:
            assert ledger._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            (one,) = ledger.open_attempts()
            assert one.job.id == max(done, default=1), (number, said.stdout, said.stderr)
            assert ledger.last_pops() == ([b"%d" % one.job.id] if done else [])
        if "(INJECTED)" not in (tmp_path / "trace").read_text():
            assert len(done) == 4
            return


COMMITTER = """
import os, sys
from pathlib import Path
from tests.store.test_ledger_faults import starting, failing
from pegasus_py.store.ledger import Ledger

ledger = Ledger.open(Path(sys.argv[1]), ballast=40_000)
ledger.begin_run("queue")
previous = ledger.open_attempts()
number = ledger.next_job_id
while True:
    batch = starting(ledger, number)
    batch.ended = failing(previous).ended
    batch.pop = b"%d" % number
    ledger.commit(batch)
    os.write(1, b"%d\\n" % number)
    previous = batch.started
    number += 1
"""


def test_what_was_committed_outlives_kill_9_at_any_moment(tmp_path: Path, as_here: str) -> None:
    path = tmp_path / "ledger.db"
    chance = random.Random(3)
    last = 0
    for _ in range(12):
        committer = [sys.executable, "-c", as_here + COMMITTER, str(path)]
        process = subprocess.Popen(committer, stdout=subprocess.PIPE)
        assert process.stdout
        with process.stdout as said:
            for _ in range(chance.randrange(1, 60)):
                last = int(said.readline())
            process.send_signal(signal.SIGKILL)
            process.wait()
            last = int((said.read().split() or [b"%d" % last])[-1])
        with Ledger.open(path) as ledger:
            (one,) = ledger.open_attempts()
            # The commit under way when it was killed is there whole, or not at all.
            assert one.job.id in (last, last + 1)
            assert ledger.last_pops() == [b"%d" % one.job.id]
            assert ledger.next_job_id == one.job.id + 1
            assert len(ledger.uncleared()) == one.job.id - 1
            assert ledger._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            last = one.job.id
