"""`pegasus status` tells how a controller is: who gets no jobs, and why nothing is taken from the queue."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from tests.e2e.program import Gate, pegasus, running, write
from tests.support.procs import wait_until


def condition() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pegasus("status", "--json").out)["condition"]
    return found


def test_it_names_the_sub_nodes_that_get_no_jobs_and_why(here: Path) -> None:
    gate = Gate(here, "gate")
    write(here, "- node-1\n- nowhere.invalid\n", f"- {gate.command}\n")
    with running(here, "q") as run:
        gate.wait()
        run.until_said("[nowhere.invalid] cannot be reached")
        shown = pegasus("status")
        (absent,) = condition()["absent"]
        gate.open()
        assert run.result().code == 0
    assert "\nsub-nodes   1 of 2 take jobs\n            nowhere.invalid: " in shown.out, shown
    assert "trying again" in shown.out
    assert absent["subnode"] == "nowhere.invalid" and "cannot be resolved" in absent["reason"], absent
    assert condition() is None
    assert "sub-nodes" not in pegasus("status").out


def test_it_tells_why_nothing_is_taken_and_that_it_is_over(here: Path) -> None:
    write(here, "- node-1\n", "")
    with running(here, "q", "-d") as run:
        wait_until(lambda: (c := condition()) and not c["absent"], "the node to be there")
        (here / "queue.yaml").write_text("- echo {{ nobody }}\n")
        run.until_said("'nobody' is undefined")
        shown = pegasus("status")
        assert (
            "1 job left in queue.yaml\n            nothing is taken from it: queue.yaml:1:3: 'nobody'"
            in shown.out
        )
        assert "'nobody' is undefined" in condition()["trouble"]

        (here / "queue.yaml").write_text("- echo mended\n")
        run.until_said("mended\n")
        assert condition()["trouble"] == ""
        assert "nothing is taken" not in pegasus("status").out
        assert pegasus("stop").code == 0
        assert run.result().code == 0


def test_what_is_wrong_with_an_entry_that_comes_later_is_told_when_it_is_reached(here: Path) -> None:
    """An option in the wrong place, once; and a name that not every node has, whose fault names the node."""
    write(here, "- hostname: node-1\n", "")
    with running(here, "q", "-d") as run:
        wait_until(lambda: (c := condition()) and not c["absent"], "the node to be there")
        (here / "queue.yaml").write_text("- command: echo it\n  timeout: [1, 2, 3]\n")
        run.until_said("warning: queue.yaml:1:3: 'timeout' stands beside `command`")
        wait_until(lambda: run.out.count("it\n") == 3, "the jobs")
        (here / "queue.yaml").write_text("- echo {{ gpu }}\n")
        run.until_said("'gpu' is undefined on node-1; defined there: hostname")
        (here / "queue.yaml").write_text("")
        assert pegasus("stop").code == 0
        assert run.result().err.count("stands beside") == 1


def test_a_fault_in_the_file_is_told_once(here: Path) -> None:
    write(here, "- node-1\n", "")
    with running(here, "q", "-d") as run:
        (here / "queue.yaml").write_text("- [echo\n")
        run.until_said("not YAML")
        shown = pegasus("status")
        (here / "queue.yaml").write_text("")
        pegasus("stop")
        run.result()
    assert shown.out.count("not YAML") == 1, shown


def test_it_says_that_the_run_is_stopping(here: Path) -> None:
    gate = Gate(here, "gate")
    write(here, "- node-1\n", f"- {gate.command}\n- echo later\n")
    with running(here, "q") as run:
        gate.wait()
        assert "stopping" not in pegasus("status").out
        assert pegasus("stop").code == 0
        assert "; stopping\n" in pegasus("status").out
        gate.open()
        assert run.result().code == 6


def test_a_controller_that_does_not_answer_keeps_the_rest_from_nobody(here: Path) -> None:
    gate = Gate(here, "gate")
    write(here, "- node-1\n", f"- {gate.command}\n- echo later\n")
    with running(here, "q") as run:
        gate.wait()
        run.process.send_signal(signal.SIGSTOP)
        shown = pegasus("status")
        run.process.send_signal(signal.SIGCONT)
        gate.open()
        assert run.result().code == 0
    assert f"pid {run.process.pid} on " in shown.out and "; it gives no answer\n" in shown.out, shown
    assert "1 job left" in shown.out and "1 running" in shown.out
    assert not [name for name in (here / ".pegasus/queue.yaml/control").iterdir() if name.suffix == ".req"]


def test_where_nothing_can_be_written_it_shows_what_can_be_read(here: Path) -> None:
    gate = Gate(here, "gate")
    write(here, "- node-1\n", f"- {gate.command}\n")
    control = here / ".pegasus/queue.yaml/control"
    with running(here, "q") as run:
        gate.wait()
        away = control.rename(control.with_name("away"))
        shown = pegasus("status")
        away.rename(control)
        gate.open()
        assert run.result().code == 0
    assert shown.code == 0 and "it cannot be asked more: " in shown.out and "1 running" in shown.out, shown
