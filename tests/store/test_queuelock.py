"""The queue's lock: the quick way to take it is the same lock as filelock's."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock, SoftFileLock, Timeout

from pegasus_py.errors import StorageError
from pegasus_py.store.queuelock import QueueBusy, QueueLock


@pytest.fixture
def lock(tmp_path: Path) -> QueueLock:
    return QueueLock(tmp_path / "queue.yaml")


def others(lock: QueueLock) -> list[FileLock | QueueLock]:
    return [FileLock(lock.path), QueueLock(lock.queue)]


def take(lock: FileLock | QueueLock) -> None:
    if isinstance(lock, QueueLock):
        lock.acquire(0, "")
    else:
        lock.acquire(timeout=0)


@pytest.mark.parametrize("which", [0, 1])
def test_it_keeps_others_out_and_is_kept_out(lock: QueueLock, which: int) -> None:
    other = others(lock)[which]
    for _ in range(3):
        lock.acquire(0, "")
        with pytest.raises((Timeout, QueueBusy)):
            take(other)
        with pytest.raises(QueueBusy, match="this process is already changing it"):
            lock.acquire(0, "")
        lock.release()
        take(other)
        with pytest.raises(QueueBusy, match="locked by another process"):
            lock.acquire(0, "")
        other.release()


def test_other_processes_are_kept_out(lock: QueueLock) -> None:
    lock.acquire(0, "")
    code = "import sys, filelock; filelock.FileLock(sys.argv[1]).acquire(timeout=0)"
    words = [sys.executable, "-c", code, str(lock.path)]
    assert b"Timeout" in subprocess.run(words, capture_output=True, timeout=60).stderr
    lock.release()
    subprocess.run(words, check=True, timeout=60)


def test_who_waits_gets_it(lock: QueueLock) -> None:
    other = QueueLock(lock.queue)
    other.acquire(0, "")
    giving_back = threading.Timer(0.2, other.release)
    giving_back.start()
    lock.acquire(30, "")
    with pytest.raises(QueueBusy):
        other.acquire(0, "")
    lock.release()
    giving_back.join()


def test_a_lock_file_that_was_removed_is_made_again(lock: QueueLock) -> None:
    lock.acquire(0, "")
    lock.release()
    lock.path.unlink()
    lock.acquire(0, "")
    for other in others(lock):
        with pytest.raises((Timeout, QueueBusy)):
            take(other)
    lock.release()


def test_a_lock_file_that_is_removed_while_it_is_taken_is_not_held(
    lock: QueueLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who holds the old one keeps nobody out of the new one."""
    flock = fcntl.flock

    def replaced(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        lock.path.unlink()
        lock.path.touch()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", replaced)
    lock.acquire(0, "")
    for other in others(lock):
        with pytest.raises((Timeout, QueueBusy)):
            take(other)
    lock.release()


def test_a_link_in_its_place_is_not_followed(lock: QueueLock, tmp_path: Path) -> None:
    lock.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="cannot lock the queue"):
        lock.acquire(0, "")
    assert not (tmp_path / "elsewhere").exists()


def test_the_note_is_gone_when_it_is_given_back(lock: QueueLock) -> None:
    lock.acquire(0, "an editor")
    assert lock.path.read_text().endswith(" an editor\n")
    lock.release()
    assert lock.path.read_text() == ""


@pytest.mark.parametrize("missing", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_in_the_file_system_a_file_stands_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(missing, os.strerror(missing))

    monkeypatch.setattr(fcntl, "flock", flock)
    one, other = (QueueLock(tmp_path / "queue.yaml") for _ in range(2))
    for _ in range(3):
        one.acquire(0, "")
        assert one.kind == "soft"
        with pytest.raises(Timeout):
            SoftFileLock(one.path).acquire(timeout=0)
        with pytest.raises(QueueBusy, match=r"if that has ended, remove .*queue\.yaml\.lock"):
            other.acquire(0, "")
        one.release()
        assert not one.path.exists()


def test_a_soft_lock_is_never_taken_with_flock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if flock works all of a sudden: others may still count on the file."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "")

    lock = QueueLock(tmp_path / "queue.yaml")
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        lock.acquire(0, "")
        lock.release()
    with SoftFileLock(lock.path), pytest.raises(QueueBusy):
        lock.acquire(0, "")
    lock.acquire(0, "")
    with pytest.raises(Timeout):
        SoftFileLock(lock.path).acquire(timeout=0)
    lock.release()


def test_no_descriptor_is_left(lock: QueueLock) -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with FileLock(lock.path), pytest.raises(QueueBusy):
        lock.acquire(0, "")
    for _ in range(3):
        lock.acquire(0, "")
        lock.release()
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
