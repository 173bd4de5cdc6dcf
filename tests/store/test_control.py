"""Requests to a running controller: answered, withdrawn, or refused, and never obeyed by the wrong one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pegasus_py.errors import NoController
from pegasus_py.store.control import ControlServer, request
from pegasus_py.store.rundir import Claim, RunDir
from tests.support.procs import wait_until


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "queue.yaml")


@pytest.fixture
def claim(run_dir: RunDir) -> Iterator[Claim]:
    with run_dir.claim("queue") as claim:
        yield claim


@pytest.fixture
def knocks() -> Iterator[list[int]]:
    """Signals that this process, as the controller, got."""
    got: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: got.append(number))
    yield got
    signal.signal(signal.SIGUSR1, before)


def asking(
    run_dir: RunDir, verb: str, arguments: dict[str, object] | None = None, timeout: float = 20
) -> tuple[threading.Thread, list[object]]:
    """Ask from a thread; what comes back, or is raised, is in the list when it has ended."""
    result: list[object] = []

    def ask() -> None:
        try:
            result.append(request(run_dir.path, verb, arguments, timeout))
        except NoController as error:
            result.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, result


def files(run_dir: RunDir) -> list[str]:
    """What is in the control directory; files being written do not count."""
    names = (path.name for path in (run_dir.path / "control").iterdir())
    return sorted(name for name in names if not name.startswith("."))


def test_a_request_is_knocked_for_taken_once_and_answered(
    run_dir: RunDir, knocks: list[int], claim: Claim
) -> None:
    thread, result = asking(run_dir, "stop", {"now": True, "jobs": [1, 2]})
    wait_until(lambda: knocks, "a knock")
    (one,) = claim.control.poll_requests()
    assert (one.verb, one.arguments) == ("stop", {"now": True, "jobs": [1, 2]})
    assert claim.control.poll_requests() == []
    claim.control.reply(one.id, {"running": 3})
    thread.join()
    assert result == [{"running": 3}]
    assert files(run_dir) == []


def test_requests_are_taken_in_the_order_in_which_they_came(run_dir: RunDir, claim: Claim) -> None:
    threads = []
    for number in range(5):
        threads.append(asking(run_dir, "cancel", {"job": number}))
        wait_until(lambda n=number: len(files(run_dir)) > n, "the request")  # type: ignore[misc]
    requests = claim.control.poll_requests()
    assert [r.arguments["job"] for r in requests] == [0, 1, 2, 3, 4]
    for r in requests:
        claim.control.reply(r.id, {"done": r.arguments["job"]})
    for number, (thread, result) in enumerate(threads):
        thread.join()
        assert result == [{"done": number}]


def test_without_a_controller_there_is_nobody_to_ask(run_dir: RunDir) -> None:
    with pytest.raises(NoController, match="no controller runs here"):
        request(run_dir.path, "stop")
    run_dir.claim("queue").release()
    with pytest.raises(NoController, match="no controller runs here"):
        request(run_dir.path, "stop")
    assert files(run_dir) == []


def test_no_answer_in_time_withdraws_the_request(run_dir: RunDir, claim: Claim) -> None:
    with pytest.raises(NoController, match=r"no answer in 0\.05 s; the request was withdrawn"):
        request(run_dir.path, "stop", timeout=0.05)
    assert claim.control.poll_requests() == []


def test_a_request_that_was_taken_is_not_said_to_be_withdrawn(run_dir: RunDir, claim: Claim) -> None:
    thread, result = asking(run_dir, "stop", timeout=0.3)
    wait_until(lambda: files(run_dir), "the request")
    assert claim.control.poll_requests()
    thread.join()
    assert "may still obey" in str(result[0])


def test_an_answer_given_just_before_the_end_counts(run_dir: RunDir, claim: Claim) -> None:
    thread, result = asking(run_dir, "stop")
    wait_until(lambda: files(run_dir), "the request")
    (one,) = claim.control.poll_requests()
    claim.control.reply(one.id, {"ok": True})
    claim.release()
    thread.join()
    assert result == [{"ok": True}]


def test_the_end_of_the_controller_ends_the_waiting(run_dir: RunDir, claim: Claim) -> None:
    thread, result = asking(run_dir, "stop")
    wait_until(lambda: files(run_dir), "the request")
    claim.release()
    thread.join()
    assert "ended before it answered" in str(result[0])


CONTROLLER = """
import sys
from pegasus_py.store.rundir import RunDir
claim = RunDir(sys.argv[1]).claim("queue")
print("here", flush=True)
while sys.stdin.read(): pass
"""


def test_a_controller_killed_with_a_request_in_hand_is_noticed(run_dir: RunDir) -> None:
    command = [sys.executable, "-c", CONTROLLER, str(run_dir.queue)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as controller:
        assert controller.stdout and controller.stdout.readline() == b"here\n"
        thread, result = asking(run_dir, "stop")
        wait_until(lambda: files(run_dir), "the request")
        # The knock came while nothing but the claim had prepared for it.
        assert controller.poll() is None
        controller.kill()
        thread.join()
    assert "ended before it answered" in str(result[0])
    with pytest.raises(NoController, match="was killed"):
        request(run_dir.path, "stop")


def test_a_request_for_an_earlier_controller_is_not_obeyed(run_dir: RunDir) -> None:
    first = run_dir.claim("queue")
    thread, _ = asking(run_dir, "stop")
    wait_until(lambda: files(run_dir), "the request")
    name = files(run_dir)[0]
    body = (run_dir.path / "control" / name).read_bytes()
    first.release()
    thread.join()
    (run_dir.path / "control" / name).write_bytes(body)
    with run_dir.claim("queue") as second:
        assert files(run_dir) == []
        body = body.replace(str(os.getpid()).encode(), b"1")
        (run_dir.path / "control" / name).write_bytes(body)
        assert second.control.poll_requests() == []
        assert b"another one runs now" in (run_dir.path / "control" / f"{name[:-4]}.reply").read_bytes()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b"[" * 100_000, b"{}", b'{"to":1,"verb":1,"arguments":2}']
)
def test_what_cannot_be_understood_is_answered_and_gone(run_dir: RunDir, claim: Claim, body: bytes) -> None:
    (run_dir.path / "control" / "1.req").write_bytes(body)
    assert claim.control.poll_requests() == []
    assert files(run_dir) == ["1.reply"]
    assert b"does not understand" in (run_dir.path / "control" / "1.reply").read_bytes()


def test_a_state_directory_that_went_away_is_an_error(run_dir: RunDir, claim: Claim) -> None:
    server = ControlServer(run_dir.path / "gone", claim.holder)
    with pytest.raises(Exception, match="No such file"):
        server.poll_requests()


def test_asking_needs_neither_asyncio_nor_sqlite() -> None:
    code = (
        "import sys, pegasus_py.store.rundir, pegasus_py.store.control\n"
        "print([m for m in ('asyncio', 'sqlite3', 'filelock', 'subprocess', 'socket') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
