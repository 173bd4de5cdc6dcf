"""`pegasus cancel`, and what other commands say of a job beside it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tests.e2e.program import Gate, pegasus, running, write
from tests.support.procs import wait_until


def test_what_is_not_there_is_no_success(here: Path) -> None:
    gate = Gate(here, "running")
    write(here, "- node-1\n", f"- echo one\n- {gate.command}\n")
    with running(here, "q") as run:
        gate.wait()
        for jobs in (["1"], ["99"], ["2", "99"]):
            done = pegasus("cancel", *jobs)
            assert done.code == 1, done
            assert f"job {jobs[-1]} neither runs nor waits" in done.out
        assert run.result().code == 1
    assert run.err.count("cancelling job") == 1 and "cancelling job 2\n" in run.err


def test_all_of_nothing_is_done(here: Path) -> None:
    write(here, "- node-1\n", "- echo one\n")
    with running(here, "q", "--daemon") as run:
        run.until_said("] one")
        done = pegasus("cancel", "--all")
        assert (done.code, done.out) == (0, "nothing to cancel\n")
        assert pegasus("stop", "--wait").code == 0


def test_who_waits_for_a_controller_that_is_held_is_told(here: Path) -> None:
    write(here, "- node-1\n", "- echo one\n")
    with running(here, "q", "--daemon") as run:
        run.until_said("] one")
        os.kill(run.process.pid, signal.SIGSTOP)
        with running(here, "stop") as stop:
            stop.until_said(f"waiting for the controller (pid {run.process.pid}")
            os.kill(run.process.pid, signal.SIGCONT)
            assert stop.result().code == 0
        assert run.result().code == 0


def test_a_log_is_not_followed_where_nobody_takes_the_output_in(here: Path) -> None:
    gate = Gate(here, "running")
    write(here, "- node-1\n", f"- command: echo begun; {gate.command}\n  options: {{name: my job}}\n")
    with running(here, "q") as run:
        gate.wait()
        run.until_said("] begun")
        assert "my job: echo begun" in pegasus("status").out
        with running(here, "logs", "-f", "1") as logs:
            logs.until_said("begun")
            time.sleep(1.5)  # it looks for the controller now and then
            assert logs.process.poll() is None
            run.process.kill()
            run.process.wait()
            done = logs.result()
            assert done.code == 4 and done.out == "begun\n" and "job 1 has not ended" in done.err, done
        gate.open()
    assert pegasus("q").code == 0
    assert pegasus("logs", "-f", "1").out == "begun\n"


STUBBORN = """\
- command: trap "" TERM; echo begun $PEGASUS_ATTEMPT; while :; do sleep 0.1; done
  options: {retries: 3}
"""


def _is_unwanted(here: Path) -> bool:
    with contextlib.closing(sqlite3.connect(here / ".pegasus" / "queue.yaml" / "ledger.db")) as db:
        return db.execute("SELECT reason FROM attempt").fetchall() == [("unwanted",)]


@pytest.mark.parametrize("how", ["left", "killed"])
def test_what_the_user_has_ended_is_not_begun_again_by_the_next_run(here: Path, how: str) -> None:
    """The controller goes while the job has its grace period."""
    write(here, "- node-1\n", STUBBORN)
    with running(here, "q", "--grace", "2s") as run:
        run.until_said("] begun 1.1.")
        if how == "left":
            for said in ("stopping; nothing new", "stopping now", "left; what runs goes on"):
                os.kill(run.process.pid, signal.SIGINT)
                run.until_said(said)
            assert run.result().code == 6, run.result()
        else:
            with running(here, "cancel", "1") as cancel:
                run.until_said("cancelling job 1")
                wait_until(lambda: _is_unwanted(here), "the wish to be recorded", 20)
                run.process.kill()
                assert cancel.result().code == 4
    done = pegasus("q", "--json")
    (job,) = json.loads(pegasus("status", "--json").out)["jobs"]
    assert (job["state"], job["attempts"]) == ("cancelled", 1), done
    assert "begun 1.2." not in done.out
