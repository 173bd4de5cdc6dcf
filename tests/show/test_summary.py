"""What the user reads at the end."""

from __future__ import annotations

import json
import tracemalloc

from pegasus_py.core.events import (
    Dropped,
    Event,
    NodeDown,
    NodeSetAside,
    NodeUp,
    QueueBad,
    QueueMended,
    Started,
)
from pegasus_py.core.model import JobState
from pegasus_py.show.summary import Summary
from pegasus_py.show.table import table
from pegasus_py.show.terminal import cells
from tests.show.samples import attempt, ended, node


def mixed() -> Summary:
    summary = Summary()
    events: list[Event] = [
        NodeUp(node("node-1")),
        NodeUp(node("node-2")),
        NodeDown(node("node-3"), "connection refused", None),
        NodeSetAside(node("node-2"), "5 attempts failed in a row"),
        *(Started(attempt(job)) for job in range(1, 6)),
        ended(1),
        ended(2, JobState.FAILED, 3, command="python train.py --lr 0.1 " + "--flag " * 30),
        ended(3, JobState.FAILED, 1, retry_in=1.0),
        ended(4, JobState.LOST, None, subnode="node-2", reason="the node rebooted"),
        ended(5, JobState.FAILED, 137, command="漢字" * 40),
    ]
    for event in events:
        summary.handle(event)
    summary.not_started = 2
    return summary


def test_counts_and_failures_are_named() -> None:
    text = mixed().render(None, colour=False)
    lines = text.splitlines()
    assert lines[0].split() == ["job", "ended", "sub-node", "command", "reason", "log"]
    assert lines[1].startswith("2    exit 3 ")
    assert lines[1].endswith(".pegasus/queue.yaml/logs/2.1.log")
    assert "exit 137 SIGKILL" in lines[3]
    assert "not reached: node-3: connection refused" in lines
    assert "set aside: node-2: 5 attempts failed in a row" in lines
    assert lines[-1] == "1 succeeded, 2 failed, 1 lost, 2 not started, 1 retried"


def test_a_job_that_is_not_tried_again_is_counted_and_named() -> None:
    """And was not retried."""
    summary = Summary()
    summary.handle(ended(1))
    summary.handle(ended(3, JobState.FAILED, 1, retry_in=60.0))
    summary.handle(ended(4, JobState.FAILED, 1, retry_in=60.0))
    summary.handle(Dropped(attempt(3).job, 1))
    # It had failed in an earlier run.
    summary.handle(Dropped(attempt(9).job, 2, "its node left the broadcast"))
    lines = summary.render(None, colour=False).splitlines()
    assert lines[1].startswith("3    cancelled ") and "cancelled before its next attempt" in lines[1]
    assert lines[2].startswith("9    cancelled ") and "its node left the broadcast" in lines[2]
    assert lines[-1] == "1 succeeded, 0 failed, 2 cancelled, 1 retried"
    found = summary.as_dict()
    assert (found["counts"]["cancelled"], found["retried"], found["failures_not_listed"]) == (2, 1, 0)
    assert [f["attempt"] for f in found["failures"]] == [1, 2]


def test_a_job_that_waits_at_the_end_was_not_retried() -> None:
    summary = Summary()
    for job in (3, 4):
        summary.handle(ended(job, JobState.FAILED, 1, retry_in=60.0))
    summary.handle(ended(3))
    # One waits since an earlier run.
    summary.wait_for({4, 9})
    assert summary.render(None, colour=False) == "1 succeeded, 0 failed, 2 to be tried again, 1 retried\n"


def test_it_fits_eighty_columns_and_still_names_the_logs() -> None:
    lines = mixed().render(80, colour=False).splitlines()
    assert all(cells(line) <= 80 for line in lines)
    assert lines[1].endswith(" 2.1.log")
    assert "logs are in .pegasus/queue.yaml/logs/" in lines


def test_colour_only_when_wanted() -> None:
    assert "\x1b" not in mixed().render(80, colour=False)
    assert "\x1b[32m1 succeeded\x1b[0m" in mixed().render(80, colour=True)


def test_all_good_is_one_line() -> None:
    summary = Summary()
    summary.handle(ended())
    assert summary.render(80, colour=False) == "1 succeeded, 0 failed\n"


def test_attempts_without_an_end_are_still_running() -> None:
    summary = Summary()
    summary.open = 1
    assert "1 still running" in summary.render(80, colour=False)


def test_a_node_that_came_back_and_a_queue_that_was_mended_are_no_news() -> None:
    summary = Summary()
    for event in (
        NodeDown(node(), "no route", 1.0),
        NodeUp(node()),
        QueueBad("queue.yaml:1:1: bad"),
        QueueMended(),
    ):
        summary.handle(event)
    assert summary.render(80, colour=False) == "0 succeeded, 0 failed\n"
    summary.handle(NodeDown(node(), "reset", 1.0, was_up=True))
    summary.handle(QueueBad("queue.yaml:1:1: bad"))
    text = summary.render(80, colour=False)
    assert "connection lost: node-1: reset\n" in text
    assert "queue.yaml:1:1: bad\n" in text


def test_as_dict_is_json_and_complete() -> None:
    data = json.loads(json.dumps(mixed().as_dict()))
    assert data["counts"] == {"succeeded": 1, "failed": 2, "timed-out": 0, "cancelled": 0, "lost": 1}
    assert data["not_started"] == 2
    assert data["unreachable"] == {"node-3": "connection refused"}
    assert [(f["job"], f["state"], f["status"], f["signal"]) for f in data["failures"]] == [
        (2, "failed", 3, None),
        (4, "lost", None, None),
        (5, "failed", 137, "SIGKILL"),
    ]
    assert data["nodes"]["node-2"]["lost"] == 1
    assert data["failures_not_listed"] == 0


def test_memory_is_bounded_by_the_failures_that_are_listed() -> None:
    summary = Summary(most=100)
    event = ended(1, JobState.FAILED, 1, command="c" * 1000)
    for _ in range(200):
        summary.handle(event)
    tracemalloc.start()
    try:
        for _ in range(20_000):
            summary.handle(event)
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert grown < 20_000
    assert summary.failed == 20_200
    assert "... and 20,100 more" in summary.render(80, colour=False)


def test_foreign_text_cannot_spoil_the_summary() -> None:
    summary = Summary()
    summary.handle(ended(1, JobState.LOST, None, command="echo \x1b[2J\x07", reason="[/nope]\x1b]0;x\x07\n"))
    text = summary.render(80, colour=False)
    assert "\x1b" not in text
    assert "[/nope]" in text


def test_the_table_of_nodes() -> None:
    lines = mixed().render_nodes(80, colour=False).splitlines()
    assert lines[0].split() == ["sub-node", "succeeded", "failed", "lost"]
    assert lines[1].split() == ["node-1", "1", "2"]


def test_a_table_leaves_out_empty_columns_and_cuts_the_widest() -> None:
    lines = table(["a", "b", "c"], [["1", "", "long text here"], ["2", "", "short"]], width=15, flexible=(2,))
    assert lines == ["a  c", "1  long text h…", "2  short"]
