"""Log files: every byte once, few files open, flushed before a node may forget."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from pegasus_py.core.model import Attempt, Job, Task
from pegasus_py.errors import StorageError
from pegasus_py.store import disk
from pegasus_py.store import logs as logs_module
from pegasus_py.store.logs import LogFiles


def attempt(job: int, number: int = 1) -> Attempt:
    return Attempt(Job(job, Task("true"), "true", "n"), number, "n", "0" * 16)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_bytes_are_kept_as_they_are_and_taken_up_where_they_ended(tmp_path: Path) -> None:
    every = bytes(range(256)) * 3
    logs = LogFiles(tmp_path)
    one = attempt(7, 2)
    assert logs.open(one, fresh=True) == 0
    logs.write(one, every)
    logs.write(one, b"")
    assert logs.size(one) == len(every)
    logs.close(one)
    assert logs.path(one) == tmp_path / "7.2.log"
    later = LogFiles(tmp_path)
    assert later.open(one) == len(every)
    later.write(one, b"\r\nrest")
    later.close_all()
    assert logs.path(one).read_bytes() == every + b"\r\nrest"


def test_a_job_without_output_has_no_file_and_others_are_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        logs = LogFiles(tmp_path)
        for one in (attempt(1), attempt(2)):
            logs.open(one, fresh=True)
        logs.write(attempt(2), b"x")
        logs.close_all()
    finally:
        os.umask(before)
    assert [path.name for path in tmp_path.iterdir()] == ["2.1.log"]
    assert stat.S_IMODE(logs.path(attempt(2)).stat().st_mode) == 0o600


def test_who_is_overtaken_before_any_output_takes_none_away(tmp_path: Path) -> None:
    """Paused with a start in its hands: the next controller has taken the attempt up, with its output."""
    paused, later = LogFiles(tmp_path), LogFiles(tmp_path)
    later.open(attempt(1), fresh=False)
    later.write(attempt(1), b"all of it")
    assert paused.open(attempt(1), fresh=True) == 0
    paused.close(attempt(1))
    assert paused.path(attempt(1)).read_bytes() == b"all of it"
    later.close_all()


def test_a_log_is_not_safe_before_its_flush_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = LogFiles(tmp_path)
    logs.open(attempt(1), fresh=True)
    logs.write(attempt(1), b"output")
    seen = [logs.are_safe([attempt(1)])]
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        seen.append(logs.are_safe([attempt(1)]))
        fsync(descriptor)

    monkeypatch.setattr(disk, "fsync", slow)
    logs.sync([attempt(1)])
    seen.append(logs.are_safe([attempt(1)]))
    assert seen == [False, False, False, True]
    logs.close_all()


def test_the_logs_of_a_ledger_that_was_deleted_go(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path)
    (tmp_path / "1.1.log").write_text("of another job")
    logs.clear()
    assert logs.open(attempt(1), fresh=True) == 0
    logs.close(attempt(1))
    assert not logs.path(attempt(1)).exists()


def test_a_fresh_attempt_does_not_go_on_with_a_strange_file_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "1.1.log").write_bytes(b"of a ledger that was thrown away")
    logs = LogFiles(tmp_path)
    assert logs.open(attempt(1), fresh=True) == 0
    logs.write(attempt(1), b"new")
    logs.close_all()
    assert (tmp_path / "1.1.log").read_bytes() == b"new"


def test_many_logs_are_written_with_few_descriptors(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path, max_open=4)
    attempts = [attempt(n) for n in range(50)]
    before = open_descriptors()
    for one in attempts:
        logs.open(one, fresh=True)
    for piece in (b"a", b"b", b"c"):
        for one in attempts:
            logs.write(one, piece)
            assert open_descriptors() <= before + 4
    logs.sync(attempts)
    assert open_descriptors() <= before + 4
    for one in attempts:
        logs.close(one)
        logs.close(one)
    assert open_descriptors() == before
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"abc"}


def test_each_log_is_flushed_once_and_again_only_after_more_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(disk, "fsync", lambda fd: flushed.append(Path(f"/proc/self/fd/{fd}").readlink().name))
    logs = LogFiles(tmp_path)
    one, two, silent = attempt(1), attempt(2), attempt(3)
    for each in (one, two, silent):
        logs.open(each, fresh=True)
    logs.write(one, b"x")
    logs.write(two, b"x")
    logs.close(one)
    logs.sync([one, two, silent])
    assert flushed == ["1.1.log", "2.1.log", tmp_path.name]
    flushed.clear()
    logs.sync([one, two, silent])
    assert flushed == []
    logs.write(two, b"y")
    logs.sync([one, two, silent])
    assert flushed == ["2.1.log", tmp_path.name]
    logs.close_all()


def test_what_an_earlier_run_wrote_is_flushed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.1.log").write_bytes(b"written, then killed")
    flushed: list[int] = []
    monkeypatch.setattr(disk, "fsync", flushed.append)
    logs = LogFiles(tmp_path)
    logs.open(attempt(1))
    logs.sync([attempt(1)])
    assert len(flushed) == 2


def _fail(*_: object) -> None:
    raise OSError(5, "Input/output error")


def test_a_flush_that_fails_gives_the_log_up_for_it_would_be_told_well_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = LogFiles(tmp_path)
    good, bad, open_one = attempt(1), attempt(2), attempt(3)
    for each in (good, bad, open_one):
        logs.open(each, fresh=True)
        logs.write(each, b"x")
    logs.close(good)
    logs.close(bad)
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name != "1.1.log":
            _fail()
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "fsync", fsync)
        with pytest.raises(StorageError, match=r"2\.1\.log: Input/output error"):
            logs.sync([good, bad, open_one])
    assert list(logs.lost([good, bad, open_one])) == [bad.id, open_one.id]
    # The directory has not been flushed.
    assert not logs.are_safe([good])
    # Whoever asks is told, each time.
    for _ in range(2):
        with pytest.raises(StorageError, match=r"2\.1\.log: Input/output error"):
            logs.sync([good, bad])
    logs.sync([good])
    assert [logs.are_safe([each]) for each in (good, bad, open_one)] == [True, False, False]
    with pytest.raises(StorageError, match=r"3\.1\.log: Input/output error"):
        logs.write(open_one, b"y")
    with pytest.raises(StorageError, match=r"3\.1\.log: Input/output error"):
        logs.close(open_one)
    for each in (bad, open_one):
        assert logs.open(each) == 0
        logs.write(each, b"all of it")
        logs.close(each)
    assert not logs.lost([good, bad, open_one])
    logs.sync([good, bad, open_one])
    assert logs.are_safe([good, bad, open_one])
    assert [logs.path(each).read_bytes() for each in (good, bad, open_one)] == [
        b"x",
        b"all of it",
        b"all of it",
    ]


def test_a_directory_that_cannot_be_flushed_is_still_owed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = LogFiles(tmp_path)
    logs.open(attempt(1), fresh=True)
    logs.write(attempt(1), b"x")
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == tmp_path:
            _fail()
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "fsync", fsync)
        for _ in range(2):
            with pytest.raises(StorageError, match=f"{tmp_path}: Input/output error"):
                logs.sync([attempt(1)])
    assert not logs.lost([attempt(1)])
    logs.sync([attempt(1)])
    assert logs.are_safe([attempt(1)])
    logs.close_all()


def test_a_log_that_cannot_be_closed_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS sends it then, and may have no room for it."""
    logs = LogFiles(tmp_path, max_open=2)
    attempts = [attempt(n) for n in (1, 2, 3, 4)]
    for each in attempts:
        logs.open(each, fresh=True)
    real = os.close
    refused: set[str] = {"1.1.log", "2.1.log", "4.1.log"}

    def close(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        real(descriptor)
        if name in refused:
            raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(os, "close", close)
    logs.write(attempts[0], b"1")
    logs.write(attempts[1], b"2")
    # Makes room by closing the first one, whose fault is not this one's.
    logs.write(attempts[2], b"3")
    assert list(logs.lost(attempts)) == [attempts[0].id]
    for each in attempts[:2]:
        with pytest.raises(StorageError, match=rf"{each.job.id}\.1\.log: Disk quota exceeded"):
            logs.close(each)
    logs.close(attempts[2])
    logs.write(attempts[3], b"4")
    logs.close_all()
    assert list(logs.lost(attempts)) == [attempts[n].id for n in (0, 1, 3)]
    assert not logs.are_safe(attempts[:1])
    with pytest.raises(StorageError, match="no room"):
        _no_room(logs, monkeypatch)
    refused.clear()
    assert logs.open(attempts[0]) == 0
    logs.write(attempts[0], b"all of it")
    logs.close(attempts[0])
    logs.sync([attempts[0], attempts[2]])
    assert logs.are_safe([attempts[0], attempts[2]])
    assert logs.path(attempts[0]).read_bytes() == b"all of it"


def _no_room(logs: LogFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """No new jobs while it is not known that bytes are taken again."""

    def full(descriptor: int) -> None:
        raise OSError(122, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "fsync", full)
        logs.check()


@pytest.mark.parametrize(
    ("number", "local", "given_up"),
    [(28, True, False), (122, True, False), (5, True, True), (28, False, True), (122, False, True)],
)
def test_what_a_write_says_of_earlier_bytes_gives_the_log_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, local: bool, given_up: bool
) -> None:
    """A local disk that is full speaks of these bytes; NFS may speak of those that it took before."""
    monkeypatch.setattr(logs_module, "is_local", lambda directory: local)
    logs = LogFiles(tmp_path)
    logs.open(attempt(1), fresh=True)
    logs.write(attempt(1), b"0123456789")

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(StorageError):
            logs.write(attempt(1), b"abc")
    assert bool(logs.lost([attempt(1)])) is given_up
    if given_up:
        with pytest.raises(StorageError):
            logs.close(attempt(1))
    else:
        logs.close(attempt(1))
    assert logs.open(attempt(1)) == (0 if given_up else 10)
    logs.close_all()


def test_what_was_written_before_the_machine_was_started_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a file may have its size and not its bytes."""
    boot = ["first"]
    monkeypatch.setattr(disk, "boot_id", lambda: boot[0])
    taken_up, silent = attempt(1), attempt(2)
    path = LogFiles(tmp_path).path(taken_up)

    def run() -> LogFiles:
        logs = LogFiles(tmp_path)
        logs.begin([taken_up, silent])
        return logs

    run()
    path.write_bytes(bytes(6))
    logs = run()
    assert logs.open(taken_up) == 6
    logs.close(taken_up)
    boot[0] = "second"
    logs = run()
    # More than once, until all of it is here: connections may come and go.
    for _ in range(2):
        assert logs.open(taken_up) == 0
        logs.close(taken_up)
    # What the node does not have any more stays.
    assert path.read_bytes() == bytes(6)
    assert logs.open(taken_up) == 0
    logs.write(taken_up, b"hel")
    logs.close(taken_up)
    assert logs.open(taken_up) == 3
    # A run that is killed meanwhile leaves the next one in doubt.
    logs = run()
    assert logs.open(taken_up) == 0
    logs.write(taken_up, b"hello\n")
    logs.close(taken_up)
    assert logs.open(taken_up) == 6
    logs.close(taken_up)
    assert run().open(taken_up) == 0
    logs.sync([taken_up])
    assert run().open(taken_up) == 6
    assert path.read_bytes() == b"hello\n"
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".doubt"] == []


def test_what_was_given_up_is_doubted_by_the_next_run_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = LogFiles(tmp_path)
    logs.open(attempt(1), fresh=True)
    logs.write(attempt(1), b"0123456789")
    with monkeypatch.context() as patch, pytest.raises(StorageError):
        patch.setattr(disk, "fsync", _fail)
        logs.sync([attempt(1)])
    # Here, and there.
    for each in (logs, LogFiles(tmp_path)):
        for _ in range(2):
            with suppress(StorageError):
                each.close(attempt(1))
            assert each.open(attempt(1)) == 0
    logs.clear()
    assert not list(tmp_path.iterdir())


def test_a_file_system_that_cannot_flush_directories_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = LogFiles(tmp_path)
    logs.open(attempt(1), fresh=True)
    logs.write(attempt(1), b"x")
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == tmp_path:
            raise OSError(22, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(disk, "fsync", fsync)
    logs.sync([attempt(1)])
    assert logs.are_safe([attempt(1)])
    logs.close_all()
