"""Broadcast: every command on every sub-node, in step."""

from __future__ import annotations

from typing import Any

from pegasus_py.core.model import Job, JobOptions, Spot, Task
from pegasus_py.core.moves import CancelAsked, Refused, Resumed, Take, Waiting
from pegasus_py.core.state import Mode
from tests.core.scheduling import Bench, full


def broadcast(seats: str = "a b", entries: int = 2, **more: Any) -> Bench:
    return Bench(seats, entries, mode=Mode.BROADCAST, **more)


def test_lock_step() -> None:
    """1. both get the first 2. a is done and waits 3. b is done 4. both get the second, as round 2."""
    run = broadcast()
    assert run.said() == ["Send 1.1 a", "Send 2.1 b"]
    run.exit("1.1")
    assert run.said() == ["Record 1.1 succeeded"]
    run.exit("2.1")
    assert [o.round for o in run.orders if isinstance(o, Take)] == [2]
    assert run.said() == ["Record 2.1 succeeded", "Send 3.1 a", "Send 4.1 b"]
    run.exit("3.1")
    run.exit("4.1")
    assert run.said()[-1] == "Finish done"


def test_a_failure_does_not_stop_the_others() -> None:
    """1. the command fails on a 2. the next goes to both all the same."""
    run = broadcast()
    run.exit("1.1", 1)
    run.exit("2.1")
    assert "Send 3.1 a" in run.said()


def test_error_aborts() -> None:
    """1. -e 2. the command fails on a 3. b may finish 4. aborted, the rest of the queue is not touched."""
    run = broadcast(error_aborts=True)
    run.exit("1.1", 1)
    assert run.said()[-1] == "Record 1.1 failed"
    run.exit("2.1")
    assert run.said()[-1] == "Finish aborted"
    assert run.entries == 1


def test_error_aborts_only_when_the_retries_are_used_up() -> None:
    """1. -e, one retry 2. a fails, is retried there 3. succeeds 4. the next round starts."""
    run = broadcast(error_aborts=True, options=JobOptions(retries=1))
    run.exit("1.1", 1)
    run.exit("2.1")
    run.wait(0)
    assert run.said()[-2:] == ["Begin 1.2 a", "Send 1.2 a"]
    run.exit("1.2")
    assert run.said() == ["Record 1.2 succeeded", "Send 3.1 a", "Send 4.1 b"]


def test_error_aborts_for_what_was_cancelled_while_it_waited() -> None:
    """1. -e 2. a fails, its retry waits 3. the user cancels it 4. aborted."""
    run = broadcast(error_aborts=True, options=JobOptions(retries=1, retry_delay=60.0))
    run.exit("1.1", 1)
    run.exit("2.1")
    run.feed(CancelAsked(frozenset({1})))
    assert run.said()[-2:] == ["Drop 1", "Finish aborted"]


def test_who_is_not_there_at_the_start_takes_no_part() -> None:
    """1. b cannot be reached 2. expelled 3. a goes on alone; a late b gets nothing."""
    run = broadcast(up=False)
    run.up("a")
    assert run.said() == []
    run.down("b")
    assert run.said() == ["Expel b", "Send 1.1 a"]
    run.up("b")
    run.exit("1.1")
    assert run.said() == ["Record 1.1 succeeded", "Send 2.1 a"]


def test_require_all_in_a_broadcast() -> None:
    """1. b cannot be reached 2. no-nodes: not one command ran."""
    run = broadcast(up=False, require_all=True)
    run.up("a")
    run.down("b")
    assert run.said() == ["Finish no-nodes"]


def test_a_short_absence_keeps_the_step() -> None:
    """1. b is away for 30 s with its command 2. a waits 3. b is back, it ended 4. both go on."""
    run = broadcast(broadcast_lost_after=60.0)
    run.exit("1.1")
    run.down("b")
    run.said()
    run.wait(30)
    assert run.said() == []
    run.up("b")
    run.report("2.1", Spot.EXITED, 0)
    run.exit("2.1")
    assert run.said()[2:] == ["Record 2.1 succeeded", "Send 3.1 a", "Send 4.1 b"]


def test_a_long_absence_loses_the_step() -> None:
    """1. b is away for 60 s 2. expelled 3. a goes on 4. b is back: its result is taken, it gets nothing more."""
    run = broadcast(entries=3, broadcast_lost_after=60.0)
    run.exit("1.1")
    run.down("b")
    run.said()
    run.wait(60)
    assert run.said() == ["Expel b", "Send 3.1 a"]
    run.up("b")
    run.report("2.1", Spot.RUNNING)
    run.exit("3.1")
    assert run.said() == ["Ask 2.1", "Attach 2.1", "Record 3.1 succeeded", "Send 4.1 a"]
    run.exit("4.1")
    assert run.said() == ["Record 4.1 succeeded"]
    run.exit("2.1")
    assert run.said() == ["Record 2.1 succeeded", "Finish done"]


def test_two_short_absences_are_not_a_long_one() -> None:
    """1. away at 0, back at 30 2. away at 50 3. at 60 it has been away for 10 s only: it stays."""
    run = broadcast(broadcast_lost_after=60.0)
    run.down("b")
    run.wait(30)
    run.up("b")
    run.report("2.1", Spot.RUNNING)
    run.wait(20)
    run.down("b")
    run.said()
    run.wait(10)
    assert run.said() == []
    run.wait(50)
    assert run.said() == ["Expel b"]


def test_lost_for_good_is_expelled_at_once() -> None:
    """1. b's host key changes on the way 2. expelled 3. with -e that is an error."""
    run = broadcast(error_aborts=True)
    run.down("b", final=True)
    run.exit("1.1")
    assert run.said()[2:] == ["Expel b", "Record 1.1 succeeded", "Finish aborted"]


def test_the_retry_of_an_expelled_seat_is_given_up() -> None:
    """1. b's command failed, its retry waits 2. b goes away and is expelled 3. dropped; a goes on."""
    run = broadcast(broadcast_lost_after=60.0, options=JobOptions(retries=1, retry_delay=600.0))
    run.exit("1.1")
    run.exit("2.1", 1)
    run.down("b")
    run.said()
    run.wait(60)
    assert run.said() == ["Drop 2", "Expel b", "Send 3.1 a"]


def test_an_expelled_seats_command_is_not_retried() -> None:
    """1. b is expelled while its command runs 2. back: lost in a reboot 3. lost for good, in spite of its retries."""
    run = broadcast(broadcast_lost_after=60.0, options=JobOptions(retries=5))
    run.down("b")
    run.wait(60)
    run.up("b")
    run.said()
    run.report("2.1", Spot.REBOOTED)
    assert run.said() == ["Record 2.1 lost"]


def test_a_refused_start_is_a_failure_of_that_node() -> None:
    """1. b's disk is full 2. its command failed there 3. the others do not wait for b's disk."""
    run = broadcast()
    run.exit("1.1")
    run.feed(Refused(full("2.1"), "no space"))
    assert run.said()[2:] == ["Record 1.1 succeeded", "Record 2.1 failed", "Send 3.1 a", "Send 4.1 b"]


def test_an_earlier_run_holds_the_first_round_while_its_node_may_come() -> None:
    """1. b still runs a command of an earlier run 2. it is followed 3. done 4. the first round starts."""
    run = broadcast(up=False)
    run.feed(Resumed(run.attempt(run.job("b"), 1, "b"), 60.0))
    run.up("a", "b")
    run.report("1.1", Spot.RUNNING)
    assert run.said() == ["Ask 1.1", "Attach 1.1"]
    run.exit("1.1")
    assert run.said() == ["Record 1.1 succeeded", "Send 2.1 a", "Send 3.1 b"]


def test_an_earlier_runs_command_on_a_node_that_stays_away() -> None:
    """1. b has something of an earlier run and is not there 2. after 60 s it is expelled 3. the others start."""
    run = broadcast(up=False, broadcast_lost_after=60.0)
    run.feed(Resumed(run.attempt(run.job("b"), 1, "b"), 60.0))
    run.up("a")
    run.down("b")
    assert run.said() == []
    run.wait(60)
    assert run.said() == ["Expel b", "Send 2.1 a"]


def test_a_node_that_left_the_hosts_file_does_not_hold_the_step() -> None:
    """1. old still runs something 2. the rounds go on without it 3. the end waits for its result."""
    run = broadcast("a", entries=1, up=False, collectors="old")
    run.feed(Resumed(run.attempt(run.job("old"), 1, "old"), 60.0))
    run.up("a", "old")
    run.report("1.1", Spot.RUNNING)
    run.exit("2.1")
    assert run.said() == ["Send 2.1 a", "Ask 1.1", "Attach 1.1", "Record 2.1 succeeded"]
    run.exit("1.1", 1)
    assert run.said() == ["Record 1.1 failed", "Finish done"]


def test_a_waiting_retry_of_a_node_that_left_is_given_up() -> None:
    """1. a retry of an earlier broadcast, pinned to a node that is in no file now 2. dropped; the run goes on."""
    for mode in Mode:
        run = Bench("a", 1, up=False, mode=mode)
        run.feed(Waiting(Job(7, Task("true"), "true", "gone", None, 3), 2, 1))
        run.up("a")
        run.wait(0)
        assert "Drop 7" in run.said()
        run.exit("1.1")
        assert run.said()[-1] == "Finish done"


def test_a_queues_job_may_run_anywhere_in_a_broadcast() -> None:
    """1. a retry of a queue run waits, its node is gone 2. it runs on any seat 3. then the rounds begin."""
    run = broadcast(up=False, first_id=8)
    run.feed(Waiting(Job(7, Task("true"), "true", "gone"), 2, 1, "gone"))
    run.wait(0)
    run.up("a", "b")
    assert run.said() == ["Begin 7.2 a", "Send 7.2 a"]
    run.exit("7.2")
    assert run.said() == ["Record 7.2 succeeded", "Send 8.1 a", "Send 9.1 b"]


def test_all_lost() -> None:
    """1. both are lost for good 2. no-nodes."""
    run = broadcast()
    run.down("a", final=True)
    run.down("b", final=True)
    assert run.said()[-1] == "Finish no-nodes"


def test_a_node_that_is_lost_for_a_moment_after_a_takeover_is_waited_for() -> None:
    """1. both are taken up 2. a ends, and is away 3. b ends: the round waits 4. a is back: all go on."""
    run = broadcast(up=False, broadcast_lost_after=60.0)
    for seat in ("a", "b"):
        run.feed(Resumed(run.attempt(run.job(seat), 1, seat), 60.0))
    run.up("a", "b")
    for attempt in ("1.1", "2.1"):
        run.report(attempt, Spot.RUNNING)
    run.exit("1.1")
    run.down("a")
    run.exit("2.1")
    run.wait(4)
    assert run.said()[-2:] == ["Record 1.1 succeeded", "Record 2.1 succeeded"]
    run.up("a")
    assert run.said() == ["Send 3.1 a", "Send 4.1 b"]
