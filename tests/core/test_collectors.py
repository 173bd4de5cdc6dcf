"""Sub-nodes that are not in the hosts file any more give back what they have, and get nothing."""

from __future__ import annotations

from pegasus_py.core.model import Attempt, Job, JobState, Report, Spot, SubNode, Task
from pegasus_py.core.moves import (
    Ask,
    Attach,
    Begin,
    Exited,
    Fence,
    Opened,
    QueueView,
    Record,
    Reported,
    Resumed,
    Tick,
    Took,
)
from pegasus_py.core.scheduler import step
from pegasus_py.core.state import Settings, State, check, new_state

OLD, NEW = SubNode("old", "old", ()), SubNode("new", "new", ())
ATTEMPT = Attempt(Job(1, Task("true"), "true", "old"), 1, "old", "0123456789abcdef", "old")


def _asked() -> State:
    state = new_state(Settings(), [NEW], [OLD])
    step(state, Resumed(ATTEMPT, 5.0), 0.0)
    assert step(state, Opened("old"), 1.0) == [Ask(ATTEMPT)]
    return state


def test_what_runs_there_is_followed() -> None:
    state = _asked()
    assert step(state, Reported(Report(ATTEMPT.id, Spot.RUNNING)), 2.0) == [Attach(ATTEMPT)]
    record, *_ = step(state, Exited(ATTEMPT.id, 0), 3.0)
    assert isinstance(record, Record) and record.next is JobState.SUCCEEDED
    check(state)


def test_what_never_started_there_starts_elsewhere() -> None:
    state = _asked()
    orders = step(state, Reported(Report(ATTEMPT.id, Spot.ABSENT)), 2.0)
    assert [type(order) for order in orders] == [Fence]
    record, *_ = step(state, Reported(Report(ATTEMPT.id, Spot.FENCED)), 3.0)
    assert isinstance(record, Record) and record.next is JobState.QUEUED
    step(state, Opened("new"), 4.0)
    step(state, Tick(), 5.0)
    (begin,) = step(state, Took((), QueueView.EMPTY), 5.0)
    assert isinstance(begin, Begin) and (begin.seat, begin.waiting.tries) == ("new", 0)
    check(state)
