"""The state directory, and the one controller that may hold it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pegasus_py.errors import QueueHeld, StorageError
from pegasus_py.store.holder import Holder, write_holder
from pegasus_py.store.rundir import RunDir


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "queue.yaml")


HOLDER = """
import sys
from pegasus_py.store.rundir import RunDir
claim = RunDir(sys.argv[1]).claim("queue")
print(claim.holder.pid, flush=True)
sys.stdin.read()
if claim.previous: print(claim.previous.pid, flush=True)
claim.release()
"""


@contextmanager
def holding(run_dir: RunDir, code: str = HOLDER) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the queue until its stdin is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run_dir.queue)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert int(process.stdout.readline()) == process.pid
        yield process
        process.kill()


@pytest.fixture
def other(run_dir: RunDir) -> Iterator[subprocess.Popen[str]]:
    with holding(run_dir) as process:
        yield process


def test_everything_is_for_its_owner_alone_whatever_the_umask(run_dir: RunDir) -> None:
    for umask in (0, 0o077, 0o777):
        before = os.umask(umask)
        try:
            with run_dir.claim("queue"):
                found = [run_dir.path.parent, *run_dir.path.parent.rglob("*")]
        finally:
            os.umask(before)
        for path in found:
            wanted = 0o700 if path.is_dir() else 0o600
            if path.exists():
                assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_an_open_directory_of_ours_is_closed_and_a_strange_one_refused(
    run_dir: RunDir, tmp_path: Path
) -> None:
    run_dir.path.mkdir(parents=True)
    run_dir.path.chmod(0o777)
    run_dir.prepare()
    assert stat.S_IMODE(run_dir.path.stat().st_mode) == 0o700


@pytest.mark.parametrize("what", ["link", "file"])
def test_a_link_or_file_in_place_of_the_directory_is_refused(
    run_dir: RunDir, tmp_path: Path, what: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if what == "link":
        (tmp_path / ".pegasus").symlink_to(elsewhere)
    else:
        (tmp_path / ".pegasus").write_text("")
    with pytest.raises(StorageError, match="move it away"):
        run_dir.claim("queue")
    assert not list(elsewhere.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory to another user needs root")
def test_a_directory_of_another_user_is_refused(run_dir: RunDir) -> None:
    run_dir.path.parent.mkdir()
    os.chown(run_dir.path.parent, 12345, 12345)
    with pytest.raises(StorageError, match="another user \\(uid 12345\\)"):
        run_dir.prepare()


def test_one_queue_has_one_directory_by_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.yaml").symlink_to("queue.yaml")
    names = [tmp_path / "queue.yaml", tmp_path / "sub" / ".." / "queue.yaml", tmp_path / "link.yaml"]
    assert len({RunDir(name).path for name in names}) == 1
    assert RunDir(tmp_path / "other.yaml").path != RunDir(names[0]).path


def test_the_second_is_told_who_holds_the_queue(run_dir: RunDir, other: subprocess.Popen[str]) -> None:
    with pytest.raises(QueueHeld, match=rf"pid {other.pid} on {os.uname().nodename}, since \d\d\d\d-"):
        run_dir.claim("queue")
    assert other.stdin
    other.stdin.close()
    other.wait()
    with run_dir.claim("queue") as claim:
        assert claim.previous is None
        assert claim.is_hard
        assert run_dir.holder() == claim.holder
    assert run_dir.holder() is None


def test_a_killed_controller_is_recognised_and_named(run_dir: RunDir, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    with run_dir.claim("queue") as claim:
        assert claim.previous is not None
        assert claim.previous.pid == other.pid
        assert claim.previous.is_alive() is False


def test_a_living_controller_keeps_its_queue_when_its_lock_file_is_removed(
    run_dir: RunDir, other: subprocess.Popen[str]
) -> None:
    other.send_signal(signal.SIGSTOP)
    run_dir.lock.unlink()
    with pytest.raises(QueueHeld, match=f"pid {other.pid} "):
        run_dir.claim("queue")


def test_a_holder_with_the_pid_of_another_process_is_dead(
    run_dir: RunDir, other: subprocess.Popen[str]
) -> None:
    holder = run_dir.holder()
    assert holder is not None and holder.is_alive()
    values = {name: getattr(holder, name) for name in Holder.__struct_fields__}
    assert Holder(**{**values, "start": "1"}).is_alive() is False
    assert Holder(**{**values, "boot": "another"}).is_alive() is False
    assert Holder(**{**values, "namespace": "another"}).is_alive() is None
    assert Holder(**{**values, "host": "another"}).is_alive() is None
    other.kill()
    # Not waited for yet: a zombie does not live.
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert holder.is_alive() is False


def test_a_controller_left_by_another_host_does_not_hold_a_free_lock(run_dir: RunDir) -> None:
    run_dir.prepare()
    mine = Holder.me("queue", signals=True)
    values = {name: getattr(mine, name) for name in Holder.__struct_fields__}
    write_holder(run_dir.path / "controller.json", there := Holder(**{**values, "host": "elsewhere"}))
    with run_dir.claim("queue") as claim:
        assert claim.previous == there


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "[" * 10_000, json.dumps({"pid": "1"})])
def test_a_broken_controller_file_is_nobody(run_dir: RunDir, text: str) -> None:
    run_dir.prepare()
    (run_dir.path / "controller.json").write_text(text)
    with run_dir.claim("queue") as claim:
        assert claim.previous is None


@pytest.mark.parametrize("missing", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_in_the_file_system_a_file_stands_for_one_and_it_is_said(
    run_dir: RunDir, monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(missing, os.strerror(missing))

    monkeypatch.setattr(fcntl, "flock", flock)
    code = f"import errno, fcntl\ndef flock(*_): raise OSError({missing}, '')\nfcntl.flock = flock\n{HOLDER}"
    with holding(run_dir, code) as killed:
        with pytest.raises(QueueHeld, match=f"pid {killed.pid} "):
            run_dir.claim("queue")
        killed.kill()
    with run_dir.claim("queue") as claim:
        assert not claim.is_hard
        with pytest.raises(QueueHeld, match=f"pid {os.getpid()} "):
            run_dir.claim("queue")
    run_dir.claim("queue").release()


RACER = """
import sys, time
from pegasus_py.errors import QueueHeld
from pegasus_py.store.rundir import RunDir
import filelock
print("ready", flush=True)
sys.stdin.readline()
began = time.monotonic()
try:
    claim = RunDir(sys.argv[1]).claim("queue")
    print("won", claim.holder.pid, flush=True)
    sys.stdin.read()
    claim.release()
except QueueHeld as error:
    print(f"{time.monotonic() - began:.2f}", error, flush=True)
"""


def test_of_fifty_starts_at_once_one_wins_and_the_others_name_it(run_dir: RunDir) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(run_dir.queue)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(50)
    ]
    try:
        for racer in racers:
            assert racer.stdout and racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin
            racer.stdin.write("go\n")
            racer.stdin.flush()
        answers = [racer.stdout.readline() for racer in racers if racer.stdout]
    finally:
        for racer in racers:
            racer.communicate()
    winners = [answer for answer in answers if answer.startswith("won ")]
    assert len(winners) == 1, answers
    pid = winners[0].split()[1]
    for answer in set(answers) - {winners[0]}:
        assert f"held by another controller (pid {pid} on {os.uname().nodename}, since " in answer
