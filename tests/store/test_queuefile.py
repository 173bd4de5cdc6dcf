"""The queue file: what stays, what is refused, what happens when the disk says no."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pegasus_py.core.entries import consumed_record
from pegasus_py.errors import BadInput, StorageError
from pegasus_py.store import disk, popplan, poprecord, queuefile
from pegasus_py.store.poprecord import MOST_UNFLUSHED, PopMark, decode
from pegasus_py.store.queuefile import QueueFile
from pegasus_py.store.queuelock import QueueBusy
from tests.store.queue_harness import Engine, leftovers, tasks_in


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "queue.yaml") as engine:
        yield engine


def commands(engine: Engine) -> list[str]:
    return [task.command for task in engine.tasks]


def test_a_pop_changes_only_the_bytes_of_its_entry(engine: Engine) -> None:
    engine.path.write_text("# mine\n- echo one\n# two\n- 'echo   two'")
    engine.pop()
    data = engine.path.read_text()
    assert data.startswith("# mine\n#~") and data.endswith("\n# two\n- 'echo   two'")
    assert len(data) == len("# mine\n- echo one\n# two\n- 'echo   two'")
    assert engine.queue.compact()
    assert engine.path.read_text() == "# mine\n# two\n- 'echo   two'"


def test_what_is_appended_after_a_last_line_without_an_end_is_not_swallowed(engine: Engine) -> None:
    engine.path.write_text("- a\n- b")
    engine.pop(2)
    with engine.path.open("a") as file:
        file.write("- c\n")
    engine.pop()
    assert commands(engine) == ["a", "b", "c"]


def test_an_empty_or_absent_file_is_an_empty_queue(engine: Engine) -> None:
    with engine.queue.hold() as taking:
        assert not taking.exists
        assert taking.peek() is None
    with pytest.raises(BadInput, match="no such file"):
        engine.queue.check()
    for text in ("", "\n", "# nothing\n", "---\n", "[]\n"):
        engine.path.write_text(text)
        engine.queue.check()
        assert engine.pop() == 0
        assert engine.path.read_text() == text


def test_a_list_in_brackets_is_popped_and_never_becomes_empty_brackets(engine: Engine) -> None:
    engine.path.write_text("# top\n[one, {command: two, a: [1, 2], b: [x, y]}, # why\n  'three']\n# end\n")
    expected = tasks_in(engine.path)
    for done in range(1, len(expected) + 1):
        assert engine.pop() == 1
        assert tasks_in(engine.path) == expected[done:]
        assert engine.path.read_text().endswith("# end\n")
    assert engine.tasks == expected
    engine.queue.compact()
    assert engine.path.read_text() == "# top\n# end\n"


@pytest.mark.parametrize("most", [2, 3, 64])
def test_a_list_in_brackets_is_popped_in_batches(engine: Engine, most: int) -> None:
    engine.path.write_text("[a, {command: b, x: [1, 2, 3]}, c, d]\n")
    expected = tasks_in(engine.path)
    while engine.pop(most):
        assert tasks_in(engine.path) == expected[len(engine.tasks) :]
    assert engine.tasks == expected


def test_a_sweep_stays_compact_and_a_large_one_costs_no_more(engine: Engine) -> None:
    numbers = ", ".join(map(str, range(200)))
    engine.path.write_text(
        "- command: run\n" + "".join(f"  p{i}: [{numbers}]\n" for i in range(5)) + "- after\n"
    )
    for _ in range(7):
        engine.pop()
    entries = list(engine.queue.entries())
    assert 1 < len(entries) <= 6
    assert sum(e.size for e in entries) == 200**5 + 1 - 7
    size = engine.path.stat().st_size
    for _ in range(1000):
        engine.pop()
    assert engine.path.stat().st_size <= size
    assert sum(e.size for e in engine.queue.entries()) == 200**5 + 1 - 1007
    assert engine.tasks[1006].params[-2:] == (("p3", "5"), ("p4", "6"))


def test_filler_goes_when_it_outweighs_the_rest(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(popplan, "COMPACT", 200)
    engine.path.write_text("# keep\n" + "".join(f"- number {i}\n" for i in range(200)))
    sizes = []
    while engine.pop():
        sizes.append(engine.path.stat().st_size)
    assert commands(engine) == [f"number {i}" for i in range(200)]
    assert sizes[-1] < 300 and len(set(sizes)) < 15


def test_leaving_without_apply_changes_nothing(engine: Engine) -> None:
    engine.path.write_text("- command: a\n  x: [1, 2, 3]\n  y: [1, 2]\n- b\n")
    before = engine.path.read_bytes()
    with engine.queue.hold() as taking:
        for _ in range(2):
            task = taking.peek()
            assert task is not None
            taking.take()
        taking.pop_record(["# 1\n- a\n", "# 2\n- a\n"])
    assert engine.path.read_bytes() == before
    assert not engine.path.with_name("consumed.yaml").exists() and not leftovers(engine.path.parent)
    while engine.pop():
        pass
    assert len(engine.tasks) == 7


def test_a_bad_head_stays_and_is_named_and_goes_on_when_mended(engine: Engine) -> None:
    engine.path.write_text("- good\n- {x: 1}\n- later\n")
    engine.pop()
    with engine.queue.hold() as taking, pytest.raises(BadInput, match=r"queue.yaml:2:\d+: an entry without"):
        taking.peek()
    assert not engine.queue.changed()
    engine.path.write_text("- mended\n- later\n")
    assert engine.queue.changed()
    engine.pop(5)
    assert commands(engine) == ["good", "mended", "later"]


def test_lines_are_those_of_the_file_as_it_is(engine: Engine) -> None:
    engine.path.write_text(
        "- |\n  two\n  lines\n# c\n- command: s\n  x: [1, 2]\n  y: [1, 2]\n- a\n- {bad: 1}\n"
    )
    for _ in range(6):
        engine.pop()
    with engine.queue.hold() as taking, pytest.raises(BadInput) as caught:
        taking.peek()
    lines = engine.path.read_text().splitlines()
    assert lines[caught.value.place.line - 1] == "- {bad: 1}"


def test_changed_sees_what_others_did(engine: Engine) -> None:
    assert engine.queue.changed()
    engine.path.write_text("- a\n- b\n")
    engine.pop()
    assert not engine.queue.changed()
    with engine.path.open("a") as file:
        file.write("- c\n")
    assert engine.queue.changed()
    engine.pop()
    assert not engine.queue.changed()
    engine.path.unlink()
    assert engine.queue.changed()
    with engine.queue.hold() as taking:
        assert taking.peek() is None
    assert not engine.queue.changed()


def test_a_change_that_leaves_no_trace_in_the_times_is_seen(engine: Engine) -> None:
    engine.path.write_text("- a\n- b\n")
    engine.pop()
    found = engine.path.stat()
    with engine.path.open("r+") as file:
        file.seek(4)
        file.write("- X\n")
    os.utime(engine.path, ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(QueueBusy, match="try again"):
        engine.pop()
    engine.pop()
    assert commands(engine) == ["a", "X"]


def test_a_file_that_has_become_a_link_is_left_alone_until_it_is_back(tmp_path: Path) -> None:
    """Another controller would find its lock and its ledger beside the file to which it leads."""
    path, elsewhere = tmp_path / "queue.yaml", tmp_path / "elsewhere"
    elsewhere.mkdir()
    path.write_text("- one\n- two\n")
    queue = QueueFile(path)
    with queue.hold() as taking:
        assert taking.peek() is not None
    path.rename(elsewhere / "queue.yaml")
    path.symlink_to(elsewhere / "queue.yaml")
    for _ in range(2):
        with pytest.raises(BadInput, match=f"another file now \\({elsewhere}/queue.yaml\\)"), queue.hold():
            pass
        assert queue.changed()
    path.unlink()
    (elsewhere / "queue.yaml").rename(path)
    assert queue.changed()
    with queue.hold() as taking:
        assert (task := taking.peek()) is not None and task.command == "one"
    assert not queue.changed()


@pytest.mark.parametrize("how", ["a file", "another link", "nothing"])
def test_a_link_that_leads_elsewhere_is_noticed(tmp_path: Path, how: str) -> None:
    """`sed -i` makes a file of it."""
    real, other, link = (tmp_path / name for name in ("real.yaml", "other.yaml", "queue.yaml"))
    real.write_text("- one\n")
    other.write_text("- two\n")
    link.symlink_to(real)
    queue = QueueFile(link)
    with queue.hold() as taking:
        assert taking.peek() is not None
    assert not queue.changed()
    link.unlink()
    if how != "nothing":
        link.symlink_to(other) if how == "another link" else other.rename(link)
    assert queue.changed()
    words = "link is gone" if how == "nothing" else "another file now"
    with pytest.raises(BadInput, match=words), queue.hold():
        pass
    assert [entry.commands for entry in queue.entries()] == [("one",)], (
        "what is counted is what it takes from"
    )
    link.unlink(missing_ok=True)
    link.symlink_to(real)
    with queue.hold() as taking:
        assert (task := taking.peek()) is not None and task.command == "one"


def test_a_directory_that_was_ours_may_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "queue.yaml").write_text("- one\n")
    below = tmp_path / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    queue = QueueFile("../queue.yaml")
    below.rmdir()
    with queue.hold() as taking:
        assert (task := taking.peek()) is not None and task.command == "one"
    assert not queue.changed()


def test_a_symlink_stays_one_and_mode_is_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "queue.yaml"
    real.write_text("- command: a\n  x: [1, 2]\n  y: [1, 2]\n")
    real.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(real)
    with Engine(link) as engine:
        while engine.pop():
            engine.queue.sync()
        engine.queue.compact()
    assert link.is_symlink() and real.read_text() == ""
    assert real.stat().st_mode & 0o777 == 0o640
    assert (real.parent / "consumed.yaml").stat().st_mode & 0o007 == 0


def test_one_holder_at_a_time_who_is_named(tmp_path: Path) -> None:
    path = tmp_path / "queue.yaml"
    path.write_text("- a\n")
    one, two = QueueFile(path), QueueFile(path)
    with (
        one.hold(note="pegasus lock"),
        pytest.raises(QueueBusy, match=f"pegasus lock .*process {os.getpid()} "),
        two.hold(),
    ):
        pass
    with one.hold(), pytest.raises(QueueBusy, match="already"), one.hold():
        pass
    with one.hold(), pytest.raises(QueueBusy, match="another process"), two.hold():
        pass
    with one.hold():
        assert not two.compact()
    assert one.lock.kind == "flock"


@pytest.mark.parametrize("make", ["directory", "pipe"])
def test_what_is_no_file_is_refused(tmp_path: Path, make: str) -> None:
    path = tmp_path / "queue.yaml"
    if make == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises((BadInput, StorageError), match=r"queue.yaml: "), QueueFile(path).hold() as taking:
        taking.peek()


class Disk:
    """Answers the `at`-th call of `name` with `error`, having written a part of it; then goes on as usual."""

    def __init__(self, patch: pytest.MonkeyPatch, name: str, at: int, error: int) -> None:
        real = getattr(disk, name)
        self.left = at

        def call(*args: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                if name == "write":
                    real(args[0], bytes(args[1])[:3])
                raise OSError(error, os.strerror(error))
            return real(*args)

        patch.setattr(disk, name, call)


def test_a_full_disk_at_consumed_changes_nothing_and_apply_can_be_repeated(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.path.write_text("- a\n- b\n")
    engine.pop()
    before, records = engine.path.read_bytes(), list(engine.records)
    with monkeypatch.context() as patch:
        Disk(patch, "write", 1, errno.ENOSPC)
        with pytest.raises(StorageError, match=r"consumed.yaml: cannot append to: .*; free some space"):
            engine.pop()
    assert engine.path.read_bytes() == before
    assert engine.path.with_name("consumed.yaml").read_text() == "".join(records)
    # What the ledger has of that pop is completed by the next one who looks.
    assert engine.pop() == 0
    assert commands(engine) == ["a", "b"]
    engine.check_consumed()


def test_apply_again_after_a_failure_in_the_same_hold(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.path.write_text("- a\n- b\n")
    with engine.queue.hold() as taking:
        task = taking.peek()
        assert task is not None
        taking.take()
        taking.pop_record([consumed_record(task, "1")])
        with monkeypatch.context() as patch:
            Disk(patch, "pwrite", 1, errno.EIO)
            with pytest.raises(StorageError):
                taking.apply()
        taking.apply()
    assert engine.path.with_name("consumed.yaml").read_text() == "# 1\n- command: a\n"
    assert [t.command for t in tasks_in(engine.path)] == ["b"]


def test_a_full_disk_at_a_rewrite_is_found_before_anything_is_recorded(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.path.write_text("- {command: a, x: [1, 2], y: [1, 2]}\n")
    before = engine.path.read_bytes()
    for name in ("write", "fsync"):
        with monkeypatch.context() as patch:
            Disk(patch, name, 1, errno.ENOSPC)
            with pytest.raises(StorageError):
                engine.pop()
        assert engine.path.read_bytes() == before and not engine.tasks
        assert not leftovers(engine.path.parent)
    assert engine.pop() == 1


def test_a_failed_flush_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.path.write_text("- a\n")
    engine.pop()
    Disk(monkeypatch, "fdatasync", 1, errno.EIO)
    with pytest.raises(StorageError, match="cannot flush"):
        engine.queue.sync()
    with pytest.raises(StorageError, match="cannot flush"):
        engine.queue.sync()


def test_pops_follow_each_other_as_long_as_they_can_be_mended_together(engine: Engine) -> None:
    """What the ledger keeps: a pop with those before it that are not flushed."""
    engine.path.write_text("- echo something\n" * 300)
    kept = []
    for _ in range(2 * MOST_UNFLUSHED):
        engine.pop()
        kept.append(len(engine.blobs))
    assert kept == [*range(1, MOST_UNFLUSHED + 1)] * 2
    engine.pop(3)
    engine.pop(3)
    assert len(engine.blobs) == 2
    engine.queue.sync()
    engine.pop()
    assert len(engine.blobs) == 1
    with engine.path.open("a") as file:
        file.write("- appended\n")
    engine.pop()
    assert len(engine.blobs) == 1
    engine.pop()
    engine.path.with_name("consumed.yaml").write_text("# edited\n")
    engine.pop()
    assert len(engine.blobs) == 1


@pytest.mark.parametrize("line", ["- true\n", "- {command: echo some words}\n- two\n# between\n"])
def test_a_pop_without_one_stamp_for_all_of_it_is_followed_by_none(engine: Engine, line: str) -> None:
    """Too short for a stamp, or in more than one piece: after a power cut nobody could tell whether it is there."""
    engine.path.write_text(line * 10 + "- echo at the end\n" * 3)
    for _ in range(3):
        engine.pop(3 if "between" in line else 1)
        assert len(engine.blobs) == 1


def test_where_the_file_is_on_a_server_it_is_flushed_before_the_lock_is_given_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queuefile, "FLUSH_AFTER", -1)
    engine.path.write_text("- echo something\n" * 5)
    engine.queue.is_local = False
    for _ in range(3):
        engine.pop()
        assert len(engine.blobs) == 1
        assert not engine.queue.is_flush_due
    engine.queue.is_local = True
    engine.pop()
    assert engine.queue.is_flush_due


def test_a_pop_that_replaces_the_file_stands_alone(engine: Engine) -> None:
    engine.path.write_text("- before\n- {command: a, x: [1, 2], y: [1, 2]}\n- after\n- last\n")
    kept = []
    while engine.pop():
        kept.append((engine.path.stat().st_ino, len(engine.blobs)))
    assert len({inode for inode, _ in kept}) > 1
    for (before, _), (now, count) in pairwise(kept):
        assert before == now or count == 1
    assert commands(engine) == ["before", "a", "a", "a", "a", "after", "last"]


def test_recovery_leaves_alone_what_the_user_queued_again(engine: Engine) -> None:
    """`tail -n 2 consumed.yaml > queue.yaml` after the controller was killed, long after its last pop."""
    engine.path.write_text("- true\n- true\n- true\n")
    while engine.pop():
        pass
    engine.path.write_text("".join(engine.records))
    for _ in range(2):
        engine.restart()
        assert [t.command for t in tasks_in(engine.path)] == ["true"] * 3
    engine.path.write_text("- true\n- true\n")
    engine.restart()
    assert [t.command for t in tasks_in(engine.path)] == ["true"] * 2


def test_recovery_after_kill_9_looks_for_the_last_pop_only(engine: Engine) -> None:
    """The ones before it were applied, so what the user queued again is not theirs."""
    engine.path.write_text("- one\n- two\n- three\n")
    engine.pop()
    engine.pop()
    with engine.queue.hold() as taking:
        taking.peek()
        taking.take()
        engine.blobs.append(taking.pop_record(["- three\n"]))
    engine.path.write_text("- two\n- one\n- three\n")
    engine.restart()
    assert [t.command for t in tasks_in(engine.path)] == ["two", "one"]


@pytest.mark.parametrize("flushed", ["when nothing follows", "at the next start"])
def test_what_was_flushed_is_not_looked_for_after_a_power_cut(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, flushed: str
) -> None:
    engine.path.write_text("- true\n- true\n")
    while engine.pop():
        assert not engine.queue.is_flush_due
    assert engine.queue.is_flush_due is False
    monkeypatch.setattr(queuefile, "FLUSH_AFTER", -1)
    if flushed == "at the next start":
        engine.restart()
        assert not engine.queue.is_flush_due
    else:
        engine.queue.sync()
        assert not engine.queue.is_flush_due
    monkeypatch.setattr(disk, "boot_id", lambda: "after")
    engine.path.write_text("- true\n")
    engine.restart()
    assert [t.command for t in tasks_in(engine.path)] == ["true"]


def test_that_all_is_flushed_is_noted_for_good_only_where_somebody_may_ask(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger forgets pops right after a flush for it; should that fail, the note is still due."""
    engine.path.write_text("- one\n- two\n")
    engine.pop()
    flushed: list[str] = []
    fdatasync = disk.fdatasync

    def noting(fd: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{fd}").resolve().name)
        fdatasync(fd)

    monkeypatch.setattr(disk, "fdatasync", noting)
    monkeypatch.setattr(queuefile, "FLUSH_AFTER", -1)
    engine.queue.sync(note=False)
    assert sorted(flushed) == ["consumed.yaml", "queue.yaml"]
    for expected in (["popped"], []):
        assert engine.queue.is_flush_due == bool(expected)
        flushed.clear()
        engine.queue.sync()
        assert flushed == expected


def test_a_flush_waits_for_one_in_another_thread(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What that one has in hand is not on the disk before it is done."""
    engine.path.write_text("- one\n")
    engine.pop()
    begun, go = threading.Event(), threading.Event()

    def fdatasync(fd: int) -> None:
        begun.set()
        assert go.wait(20)

    monkeypatch.setattr(disk, "fdatasync", fdatasync)
    first, second = (threading.Thread(target=engine.queue.sync) for _ in range(2))
    before = engine.queue.is_flushing
    first.start()
    assert begun.wait(20)
    assert (before, engine.queue.is_flushing) == (False, True)
    second.start()
    second.join(0.2)
    assert second.is_alive()
    go.set()
    for thread in (first, second):
        thread.join(20)
        assert not thread.is_alive()


def test_a_flush_in_another_thread_takes_nothing_for_flushed_that_is_not(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each write of a pop: once it is noted as durable, both files were flushed as it left them."""
    engine.path.write_text("- echo number one\n- echo number two\n")
    engine.pop()
    flushed: dict[str, bytes] = {}
    noted: list[tuple[str, dict[str, bytes]]] = []
    pwrite, fdatasync = disk.pwrite, disk.fdatasync

    def noting(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").resolve()
        flushed[path.name] = path.read_bytes()
        fdatasync(fd)

    def interrupted(*args: Any) -> int:
        if threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=engine.queue.sync)
            thread.start()
            thread.join(20)
            noted.append((PopMark(engine.state).read()[1], dict(flushed)))
        return pwrite(*args)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "fdatasync", noting)
        patch.setattr(disk, "pwrite", interrupted)
        engine.pop()
    first, second = (decode(blob).stamp for blob in engine.blobs)
    assert [stamp for stamp, _ in noted] == [first, second]
    for name in ("queue.yaml", "consumed.yaml"):
        assert noted[1][1][name] == engine.path.with_name(name).read_bytes()
    assert noted[0][1]["queue.yaml"] != noted[1][1]["queue.yaml"]


def test_an_append_during_a_rewrite_is_kept(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.path.write_text("- {command: a, x: [1, 2], y: [1, 2]}\n")
    real = disk.rename
    late = engine.path.open("a")

    def rename(*args: Any) -> None:
        real(*args)
        late.write("- late\n")
        late.close()

    monkeypatch.setattr(disk, "rename", rename)
    engine.pop()
    assert [t.command for t in tasks_in(engine.path)] == ["a", "a", "a", "late"]


def test_an_edit_between_record_and_apply_is_respected(engine: Engine) -> None:
    engine.path.write_text("- a\n- b\n")
    with engine.queue.hold() as taking:
        task = taking.peek()
        assert task is not None
        taking.take()
        taking.pop_record([consumed_record(task, "1")])
        new = engine.path.with_name("new")
        new.write_text("# edited\n- zero\n- a\n- b\n")
        new.rename(engine.path)
        taking.apply()
    assert [t.command for t in tasks_in(engine.path)] == ["zero", "b"]


def test_after_an_edit_between_record_and_apply_the_next_pop_does_not_follow(engine: Engine) -> None:
    engine.path.write_text("- echo number a\n- echo number b\n- echo number c\n")
    engine.pop()
    with engine.queue.hold() as taking:
        assert taking.peek() is not None
        taking.take()
        engine.blobs.append(taking.pop_record(["- echo number b\n"]))
        assert taking.follows
        new = engine.path.with_name("new")
        new.write_bytes(engine.path.read_bytes().replace(b"number c", b"number d"))
        new.rename(engine.path)
        taking.apply()
    engine.pop()
    assert commands(engine) == ["echo number a", "echo number d"]
    assert len(engine.blobs) == 1


def test_a_blob_that_is_none_of_ours_is_an_error_and_none_is_nothing(engine: Engine) -> None:
    engine.queue.recover([])
    with pytest.raises(StorageError, match="last pops"):
        engine.queue.recover([b"{}"])


def _old(versions: list[bytes]) -> bytes:
    return versions[0]


def _pages(*which: int) -> Callable[[list[bytes]], bytes]:
    """The first pages are as these versions had them, the rest as the last one."""

    def kept(versions: list[bytes]) -> bytes:
        parts = [versions[v][n * 512 : (n + 1) * 512] for n, v in enumerate(which)]
        return b"".join(parts) + versions[-1][len(which) * 512 :]

    return kept


def _on_top(text: bytes) -> Callable[[bytes], bytes]:
    return lambda data: text + data


def _inserted(at: int, text: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + text + data[at:]


LONG = b"- ./process --all " + b"." * 80 + b"\n"
FILES = b"".join(b"- ./process --file %03d %b\n" % (n, b"." * 74) for n in range(40))


@pytest.mark.parametrize(
    ("text", "flushed", "pops", "disk", "edit"),
    [
        pytest.param(
            b"- echo one long\n# c\n- echo two long\n- echo three\n- echo four\n",
            [],
            [2],
            _old,
            lambda data: data.replace(b"- echo three", b"- changed"),
            id="in two pieces",
        ),
        pytest.param(
            b"[echo a, # x\n echo b, # y\n echo c, echo d]\n",
            [],
            [2],
            _old,
            lambda data: data.replace(b"echo c", b"echo C"),
            id="in brackets, in two pieces",
        ),
        pytest.param(
            b"- true\n" * 30 + b"- echo hello\n- echo two\n",
            [1] * 29,
            [1],
            _old,
            _on_top(b"# note\n"),
            id="short, and filler of the same size before it",
        ),
        pytest.param(
            b"- aaaa\n- true\n- echo next\n",
            [1],
            [1],
            _old,
            lambda data: b"# note\n" + data[:14] + b"- urgent\n" + data[14:],
            id="short, edits on both sides",
        ),
        pytest.param(
            b"- true\n" * 30,
            [1] * 10,
            [1],
            lambda versions: versions[-1],
            _inserted(77, b"- urgent\n"),
            id="short and done, others like it wait",
        ),
        pytest.param(
            LONG * 40,
            [],
            [4, 4],
            _pages(1),
            _inserted(4 * len(LONG), b"- urgent\n"),
            id="between two of equals",
        ),
        pytest.param(
            FILES,
            [],
            [4, 4],
            _pages(1),
            _inserted(len(FILES) // 10, b"- urgent\n"),
            id="between two of a series",
        ),
        pytest.param(
            LONG * 40,
            [],
            [1] * 6,
            _pages(-1, 0),
            _inserted(len(LONG), LONG.replace(b"--all", b"--one")),
            id="as long as each of a series",
        ),
        pytest.param(
            FILES,
            [],
            [4] * 14,
            _pages(0, 0, 0, 0, 0, 0, 0, 0),
            lambda data: data,
            id="the first pages are old",
        ),
        pytest.param(
            FILES,
            [],
            [2] * 12,
            _pages(0, 0, 0),
            lambda data: data.replace(b"file 024", b"FILE 024"),
            id="the first pages are old, the next entry is edited",
        ),
    ],
)
def test_after_a_power_cut_and_an_edit(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    text: bytes,
    flushed: list[int],
    pops: list[int],
    disk: Callable[[list[bytes]], bytes],
    edit: Callable[[bytes], bytes],
) -> None:
    """What reviews found, and what is like it. What was popped is gone, and nothing else."""
    monkeypatch.setattr("pegasus_py.store.disk.boot_id", lambda: "before")
    engine.queue.close()
    engine.queue = QueueFile(engine.path)
    engine.path.write_bytes(text)
    for most in flushed:
        engine.pop(most)
    engine.queue.sync()
    versions = [state.queue for state in engine.pop_all(pops)]
    monkeypatch.setattr("pegasus_py.store.disk.boot_id", lambda: "after")
    engine.path.write_bytes(edit(versions[-1]))
    expected = tasks_in(engine.path)
    engine.path.write_bytes(edit(disk(versions)))
    engine.restart()
    assert [t.command for t in tasks_in(engine.path)] == [t.command for t in expected]


class _Gone(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("text", "pops", "edited", "left"),
    [
        pytest.param(
            b"- train\n- other\n- train\n",
            1,
            b"# tidied up\n- new first\n- train\n- and more\n- train\n",
            ["new first", "and more", "train"],
            id="short",
        ),
        pytest.param(
            b"- python train.py --seed 1\n- other\n- python train.py --seed 1\n",
            1,
            b"# tidied up\n- new\n- python train.py --seed 1\n- more\n- python train.py --seed 1\n",
            ["new", "more", "python train.py --seed 1"],
            id="with a stamp",
        ),
        pytest.param(
            b"- python train.py --seed 1\n- python other.py --seed 1\n- end\n",
            2,
            b"# up\n- new\n- python train.py --seed 1\n- python other.py --seed 1\n- x\n"
            b"- python train.py --seed 1\n- python other.py --seed 1\n",
            ["new", "x", "python train.py --seed 1", "python other.py --seed 1"],
            id="two",
        ),
        pytest.param(
            b"[train, other, train]\n",
            1,
            b"# up\n[new, train, more, train]\n",
            ["new", "more", "train"],
            id="in brackets",
        ),
        pytest.param(
            b"- command: [train, test]\n  n: 1\n- command: [train, test]\n  n: 1\n",
            1,
            b"# up\n- new\n- command: [train, test]\n  n: 1\n- x\n- command: [train, test]\n  n: 1\n",
            ["new", "test", "x", "train", "test"],
            id="of a sweep",
        ),
    ],
)
def test_a_recovery_that_is_killed_takes_nothing_twice(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    bom: bytes,
    text: bytes,
    pops: int,
    edited: bytes,
    left: list[str],
) -> None:
    """The ledger has a pop that never reached the file, the user edits, and there are equal tasks.

    Then recovery is killed when it has changed the file and not yet noted that.
    """
    engine.path.write_bytes(bom + text)
    with engine.queue.hold() as taking:
        records = []
        for number in range(pops):
            task = taking.peek()
            assert task is not None
            taking.take()
            records.append(consumed_record(task, f"job {number}"))
        engine.blobs.append(taking.pop_record(records))
        engine.records += records
    engine.path.write_bytes(bom + edited)

    def killed(*_: object) -> None:
        raise _Gone

    engine.queue.close()
    engine.queue = QueueFile(engine.path)
    with monkeypatch.context() as patch:
        patch.setattr(QueueFile, "_done", killed)
        with pytest.raises(_Gone):
            engine.queue.recover(engine.blobs)
    assert [task.command for task in tasks_in(engine.path)] == left
    engine.restart()
    assert [task.command for task in tasks_in(engine.path)] == left
    engine.check_consumed()
    # The mark of it goes with the rest of the filler.
    engine.queue.compact()
    assert b"#~" not in engine.path.read_bytes()


def test_a_flush_that_comes_in_the_middle_of_a_pop_does_not_hide_that_it_is_to_be_noted(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It flushes the pop, but notes the one before. After a power cut an equal task would be taken for the pop's."""
    monkeypatch.setattr(disk, "boot_id", lambda: "before")
    monkeypatch.setattr(queuefile, "FLUSH_AFTER", -1.0)
    engine.queue.close()
    engine.queue = QueueFile(engine.path)
    engine.path.write_text("- python work.py\n" * 3)
    engine.pop()
    done = QueueFile._done

    def interrupted(self: QueueFile, record: poprecord.PopRecord) -> None:
        flush = threading.Thread(target=self.sync)
        flush.start()
        flush.join()
        done(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(QueueFile, "_done", interrupted)
        engine.pop()
    assert engine.queue.is_flush_due
    engine.queue.sync()
    assert engine.queue.compact()
    monkeypatch.setattr(disk, "boot_id", lambda: "after")
    engine.restart()
    assert engine.path.read_text() == "- python work.py\n"
