"""`pegasus stop`, Ctrl-C and TERM; stale, reused and missing controllers; two on one queue."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.program import Gate, pegasus, running, terminal, write
from tests.support.procs import alive, wait_until
from tests.support.sshd import SshFarm

REST = "# what is left\n- echo second\n- command: echo {{ x }}\n  x: [1, 2]\n"


def queue_of(gate: Gate) -> str:
    return f"- {gate.command}; echo finished\n{REST}"


def named(directory: Path) -> dict[str, object]:
    """The pid file."""
    found: dict[str, object] = json.loads((directory / ".pegasus/queue.yaml/controller.json").read_text())
    return found


def test_after_the_acknowledgement_the_queue_does_not_change_and_nothing_starts(here: Path) -> None:
    gate = Gate(here, "running")
    write(here, "- node-1\n", queue_of(gate))
    with running(here, "q") as run:
        gate.wait()
        stop = pegasus("stop")
        acknowledged = (here / "queue.yaml").read_bytes()
        assert stop.code == 0 and "1 running command may finish" in stop.out, stop
        assert run.process.poll() is None
        gate.open()
        result = run.result()
    assert result.code == 6 and result.said == ["finished"], result
    assert (here / "queue.yaml").read_bytes() == acknowledged == REST.encode()
    assert "3 not started" in result.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_does_the_same(here: Path, number: signal.Signals) -> None:
    gate = Gate(here, "running")
    write(here, "- node-1\n", queue_of(gate))
    with running(here, "q") as run:
        gate.wait()
        run.process.send_signal(number)
        run.until_said("stopping; nothing new starts, waiting for 1 running command")
        acknowledged = (here / "queue.yaml").read_bytes()
        gate.open()
        result = run.result()
    assert result.code == 6 and result.said == ["finished"], result
    assert (here / "queue.yaml").read_bytes() == acknowledged == REST.encode()


def test_wait_returns_when_the_controller_has_ended(here: Path) -> None:
    gate = Gate(here, "running")
    write(here, "- node-1\n", queue_of(gate))
    with running(here, "q") as run:
        gate.wait()
        with running(here, "stop", "--wait") as stop:
            run.until_said("stopping")
            assert stop.process.poll() is None
            gate.open()
            stopped = stop.result()
        assert stopped.code == 0 and "the controller has ended" in stopped.out, stopped
        assert run.process.wait(5) == 6


def test_from_another_directory_with_the_queue_file(here: Path, tmp_path: Path) -> None:
    gate = Gate(here, "running")
    write(here, "- node-1\n", queue_of(gate))
    with running(here, "q") as run:
        gate.wait()
        away = pegasus("stop", cwd=tmp_path)
        assert away.code == 4 and "no controller runs here" in away.err
        assert pegasus("stop", "-Q", str(here / "queue.yaml"), cwd=tmp_path).code == 0
        gate.open()
        assert run.result().code == 6


def test_in_broadcast_too(here: Path) -> None:
    gate = Gate(here, "running")
    write(here, "- node-1\n- node-2\n", queue_of(gate))
    with running(here, "b") as run:
        gate.wait()
        assert pegasus("stop").code == 0
        gate.open()
        result = run.result()
    assert result.code == 6 and result.said == ["finished", "finished"], result
    assert (here / "queue.yaml").read_text() == REST


def test_a_second_ctrl_c_ends_what_runs(here: Path) -> None:
    gate = Gate(here, "running")
    pid = here / "pid"
    write(here, "- node-1\n", f"- sleep 600 & echo $! > {pid}; {gate.command}; wait\n{REST}")
    with terminal("q") as run:
        gate.wait()
        run.type("\x03")
        run.until_said("stopping; nothing new starts")
        run.type("\x03")
        run.until_said("stopping now")
        assert run.end() == 1, run.text
    assert "1 cancelled" in run.text.replace("\x1b[0m", "")
    assert not alive(int(pid.read_text()))
    assert (here / "queue.yaml").read_text() == REST


def test_no_controller(here: Path) -> None:
    stop = pegasus("stop")
    assert stop.code == 4 and stop.err.count("\n") == 1 and "no controller runs here" in stop.err, stop


def killed_controller(here: Path) -> Gate:
    """A controller killed by -9 while a command runs."""
    gate = Gate(here, "running")
    write(here, "- node-1\n", queue_of(gate))
    with running(here, "q") as run:
        gate.wait()
        run.process.kill()
        run.process.wait(10)
    return gate


def test_a_stale_pid_file_is_recognised_and_the_next_run_takes_over(here: Path) -> None:
    gate = killed_controller(here)

    stop = pegasus("stop")
    assert stop.code == 4 and "was killed" in stop.err, stop

    gate.open()
    run = pegasus("q")
    assert run.code == 0 and run.said == ["1", "2", "finished", "second"], run
    assert "taking up 1 job" in run.err


def test_a_pid_that_belongs_to_somebody_else_now_gets_no_signal(here: Path) -> None:
    gate = killed_controller(here)
    with running(here, "lock", "--editor", "sleep 60") as innocent:
        file = here / ".pegasus/queue.yaml/controller.json"
        file.write_text(json.dumps({**named(here), "pid": innocent.process.pid}))
        stop = pegasus("stop")
        assert stop.code == 4 and "was killed" in stop.err, stop
        assert innocent.process.poll() is None
        os.killpg(innocent.process.pid, signal.SIGKILL)
    gate.open()
    assert pegasus("q").code == 0


def test_a_second_controller_is_refused_and_told_who_holds_the_queue(here: Path) -> None:
    gate = Gate(here, "running")
    write(here, "- node-1\n", queue_of(gate))
    with running(here, "q") as first:
        gate.wait()
        before = (here / "queue.yaml").read_bytes()
        for verb in ("q", "b"):
            second = pegasus(verb)
            assert second.code == 4 and f"pid {first.process.pid}" in second.err, second
            assert second.err.count("\n") == 1 and second.out == ""
        assert (here / "queue.yaml").read_bytes() == before
        gate.open()
        assert first.result().code == 0


def test_stopping_an_idle_daemon_is_a_success(here: Path, farm: SshFarm) -> None:
    write(here, "- node-1\n", "- echo once\n")
    with running(here, "q", "-d") as run:
        run.until_said("] once\n")
        wait_until(lambda: pegasus("status", "--json").out.count('"succeeded"') >= 2, "the job to have ended")
        stop = pegasus("stop", "--wait")
        assert stop.code == 0 and run.result().code == 0, run.result()
