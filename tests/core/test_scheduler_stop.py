"""Cancel, timeout and stop, in every phase of an attempt."""

from __future__ import annotations

from pegasus_py.core.model import JobOptions, JobState, Spot
from pegasus_py.core.moves import (
    Began,
    Begin,
    CancelAsked,
    Exited,
    Look,
    Over,
    QueueView,
    Refused,
    StopAsked,
    StopLevel,
    Took,
)
from tests.core.scheduling import Bench, full

ALL = CancelAsked(None)
RETRY = JobOptions(retries=3)


def cancel(*jobs: int) -> CancelAsked:
    return CancelAsked(frozenset(jobs))


# --- cancel ----------------------------------------------------------------------------------------------------


def test_cancel_while_running() -> None:
    """1. killed 2. its exit comes first 3. then the answer 4. cancelled with its status; no retry."""
    run = Bench("a", 1, options=RETRY)
    run.feed(cancel(1))
    run.exit("1.1", 143)
    assert run.said() == ["Send 1.1 a", "Kill 1.1"]
    run.killed("1.1")
    [record] = run.records()
    assert (record.end.state, record.next, record.end.status) == (JobState.CANCELLED, JobState.CANCELLED, 143)


def test_cancel_where_the_kill_is_answered_first() -> None:
    """1. killed, nothing left 2. was it started at all? fence 3. it has exited 4. the exit comes: cancelled."""
    run = Bench("a", 1)
    run.feed(cancel(1))
    run.killed("1.1")
    run.report("1.1", Spot.EXITED, 143)
    run.exit("1.1", 143)
    assert run.said() == [
        "Send 1.1 a",
        "Kill 1.1",
        "Fence 1.1",
        "Attach 1.1",
        "Kill 1.1",
    ]
    run.killed("1.1")
    assert run.said() == ["Record 1.1 cancelled", "Finish done"]


def test_cancel_that_overtakes_the_start() -> None:
    """1. the kill gets there before the start 2. nothing to end 3. the fence takes the marker 4. never started."""
    run = Bench("a", 1)
    run.feed(cancel(1))
    run.killed("1.1")
    run.report("1.1", Spot.FENCED)
    assert run.said()[2:] == ["Fence 1.1", "Record 1.1 cancelled keep", "Finish done"]


def test_cancel_that_meets_the_start_halfway() -> None:
    """1. the kill finds nothing 2. the fence finds it running 3. killed again."""
    run = Bench("a", 1)
    run.feed(cancel(1))
    run.killed("1.1")
    run.report("1.1", Spot.RUNNING)
    assert run.said()[2:] == ["Fence 1.1", "Attach 1.1", "Kill 1.1"]


def test_cancel_names_what_survives() -> None:
    """1. a process cannot be ended 2. recorded with its name 3. the seat rests, nothing is cleared."""
    run = Bench("a", 1, options=RETRY)
    run.feed(cancel(1))
    run.said()
    run.killed("1.1", "4711 stuck")
    [record] = [o for o in run.orders if hasattr(o, "end")]
    assert record.end.survivors == ("4711 stuck",)
    assert run.said()[:2] == ["Record 1.1 cancelled keep", "SetAside a"]


def test_cancel_while_unreachable() -> None:
    """1. the node is away 2. cancel waits 3. back: it runs 4. killed."""
    run = Bench("a", 1)
    run.down("a")
    run.feed(ALL)
    run.up("a")
    run.report("1.1", Spot.RUNNING)
    assert run.said() == ["Send 1.1 a", "Ask 1.1", "Attach 1.1", "Kill 1.1"]


def test_cancel_while_unreachable_and_it_never_started() -> None:
    """1. cancelled while away 2. back: absent 3. fenced 4. cancelled."""
    run = Bench("a", 1)
    run.down("a")
    run.feed(ALL)
    run.up("a")
    run.report("1.1", Spot.ABSENT)
    run.report("1.1", Spot.FENCED)
    assert run.said()[1:] == ["Ask 1.1", "Fence 1.1", "Record 1.1 cancelled keep", "Finish done"]


def test_cancel_while_unreachable_and_it_had_ended() -> None:
    """1. cancelled while away 2. back: it had succeeded 3. that is what is recorded."""
    run = Bench("a", 1)
    run.down("a")
    run.feed(ALL)
    run.up("a")
    run.report("1.1", Spot.EXITED, 0)
    run.exit("1.1", 0)
    assert run.said()[1:] == ["Ask 1.1", "Attach 1.1", "Record 1.1 succeeded", "Finish done"]


def test_cancel_while_unreachable_and_it_had_failed() -> None:
    """1. cancelled while away 2. back: it had failed 3. cancelled: no retry."""
    run = Bench("a", 1, options=RETRY)
    run.down("a")
    run.feed(ALL)
    run.up("a")
    run.report("1.1", Spot.EXITED, 1)
    run.exit("1.1", 1)
    assert run.said()[1:] == ["Ask 1.1", "Attach 1.1", "Record 1.1 cancelled", "Finish done"]


def test_cancel_while_asked() -> None:
    """1. the node is asked 2. cancel 3. it answers: running 4. killed."""
    run = Bench("a", 1)
    run.down("a")
    run.up("a")
    run.feed(ALL)
    run.report("1.1", Spot.RUNNING)
    assert run.said()[1:] == ["Ask 1.1", "Attach 1.1", "Kill 1.1"]


def test_cancel_while_waiting_for_a_retry() -> None:
    """1. failed, waits 30 s 2. cancelled: dropped 3. the timer finds nothing."""
    run = Bench("a", 1, daemon=True, options=JobOptions(retries=1, retry_delay=30.0))
    run.exit("1.1", 1)
    run.said()
    run.feed(cancel(1))
    run.wait(60)
    assert run.said() == ["Drop 1"]


def test_cancel_while_waiting_for_a_seat() -> None:
    """1. its retry is due, no other host is free 2. cancelled: dropped."""
    run = Bench("a b", 2, options=RETRY)
    run.exit("1.1", 1)
    run.wait(0)
    run.said()
    run.feed(cancel(1))
    run.exit("2.1")
    assert run.said() == ["Drop 1", "Record 2.1 succeeded", "Finish done"]


def test_cancel_while_the_retry_is_recorded() -> None:
    """1. Begin is out 2. cancelled 3. Began: it is not sent, but recorded as cancelled."""
    run = Bench("a", 1, options=RETRY)
    run.exit("1.1", 1)
    run.slow = True
    run.wait(0)
    run.feed(cancel(1))
    begin = next(o for o in run.orders if isinstance(o, Begin))
    run.said()
    run.slow = False
    run.feed(Began(begin.waiting, "a", run.attempt(begin.waiting.job, 2, "a")))
    assert run.said() == ["Record 1.2 cancelled", "Finish done"]


def test_cancel_while_the_retry_could_not_be_recorded() -> None:
    """1. Begin is out 2. cancelled 3. Began without an attempt 4. dropped."""
    run = Bench("a", 1, options=RETRY)
    run.exit("1.1", 1)
    run.slow = True
    run.wait(0)
    run.feed(cancel(1))
    begin = next(o for o in run.orders if isinstance(o, Begin))
    run.said()
    run.slow = False
    run.feed(Began(begin.waiting, "a", None))
    assert run.said() == ["Drop 1", "Finish done"]


def test_cancel_of_one_leaves_the_others() -> None:
    """1. two run 2. one is cancelled 3. the other is not touched; the queue goes on."""
    run = Bench("a b", 3)
    run.feed(cancel(2))
    run.exit("1.1")
    assert run.said()[2:] == ["Kill 2.1", "Record 1.1 succeeded", "Send 3.1 a"]


def test_cancel_and_the_connection_goes() -> None:
    """1. kill is out 2. cut: nobody will answer 3. back: vanished 4. cancelled."""
    run = Bench("a", 1, options=RETRY)
    run.feed(ALL)
    run.down("a")
    run.up("a")
    run.report("1.1", Spot.VANISHED)
    assert run.said()[1:] == ["Kill 1.1", "Ask 1.1", "Record 1.1 cancelled", "Finish done"]


def test_cancel_and_the_exit_is_known_but_the_connection_goes() -> None:
    """1. kill is out, the exit came 2. cut 3. back: exited 4. killed once more, then recorded with its status."""
    run = Bench("a", 1)
    run.feed(ALL)
    run.exit("1.1", 143)
    run.down("a")
    run.up("a")
    run.report("1.1", Spot.EXITED, 143)
    run.exit("1.1", 143)
    run.killed("1.1")
    [record] = run.records()
    assert (record.end.state, record.end.status) == (JobState.CANCELLED, 143)


def test_cancel_and_a_refusal_of_the_second_start() -> None:
    """1. sent twice over a cut 2. kill is out 3. refused: fence 4. the kill's answer changes nothing 5. cancelled."""
    run = Bench("a", 1)
    run.down("a")
    run.up("a")
    run.report("1.1", Spot.ABSENT)
    run.feed(ALL)
    run.feed(Refused(full("1.1"), "no space"))
    run.killed("1.1")
    run.report("1.1", Spot.FENCED)
    assert run.said()[3:] == [
        "Kill 1.1",
        "Fence 1.1",
        "SetAside a",
        "Record 1.1 cancelled keep",
        "Finish done",
    ]


# --- timeout ---------------------------------------------------------------------------------------------------


def test_timeout_kills_and_is_retried() -> None:
    """1. ten seconds 2. killed 3. timed out 4. it has a retry."""
    run = Bench("a", 1, options=JobOptions(timeout=10.0, retries=1))
    run.wait(10)
    run.exit("1.1", 143)
    run.killed("1.1")
    run.wait(0)
    assert run.said() == [
        "Send 1.1 a",
        "Kill 1.1",
        "Record 1.1 timed-out queued",
        "Begin 1.2 a",
        "Send 1.2 a",
    ]


def test_cancel_after_timeout_is_no_timeout_any_more() -> None:
    """1. the timeout's kill is out 2. the user cancels 3. cancelled, not retried."""
    run = Bench("a", 1, options=JobOptions(timeout=10.0, retries=1))
    run.wait(10)
    run.feed(cancel(1))
    run.exit("1.1", 143)
    run.killed("1.1")
    assert run.said()[1:] == ["Kill 1.1", "Record 1.1 cancelled", "Finish done"]


def test_a_timeout_of_what_never_started_is_none() -> None:
    """1. away longer than the timeout 2. absent 3. fenced, and given out anew: it did not run."""
    run = Bench("a", 1, options=JobOptions(timeout=10.0))
    run.down("a")
    run.wait(20)
    run.up("a")
    run.report("1.1", Spot.ABSENT)
    run.report("1.1", Spot.FENCED)
    run.wait(0)
    assert run.said()[1:] == [
        "Ask 1.1",
        "Fence 1.1",
        "Record 1.1 cancelled queued keep",
        "Begin 1.2 a",
        "Send 1.2 a",
    ]


def test_survivors_of_a_timeout_are_no_reason_to_run_it_again() -> None:
    """1. timed out, not all could be ended 2. it may still be at work: no retry."""
    run = Bench("a b", 1, options=JobOptions(timeout=10.0, retries=1))
    run.wait(10)
    run.killed("1.1", "4711 stuck")
    assert run.said()[2:] == ["Record 1.1 timed-out keep", "SetAside a", "Finish done"]


# --- stop ------------------------------------------------------------------------------------------------------


def stop(run: Bench, level: StopLevel = StopLevel.FINISH) -> None:
    run.feed(StopAsked(level))


def test_stop_lets_finish_what_runs() -> None:
    """1. stop 2. the queue stays, whatever gets free 3. the last one ends 4. stopped."""
    run = Bench("a b", 5)
    stop(run)
    run.exit("1.1")
    run.feed(Look())
    assert run.said()[2:] == ["Record 1.1 succeeded"]
    run.exit("2.1", 1)
    assert run.said() == ["Record 2.1 failed", "Finish stopped"]
    assert run.entries == 3


def test_stop_with_nothing_out() -> None:
    """1. an idle daemon 2. stop 3. stopped at once."""
    run = Bench("a", daemon=True)
    stop(run)
    assert run.said() == ["Finish stopped"]


def test_stop_before_any_node_is_up() -> None:
    """1. nothing has connected 2. stop 3. stopped; nothing was touched."""
    run = Bench("a", 3, up=False)
    stop(run)
    assert run.said() == ["Finish stopped"]


def test_stop_while_a_job_is_taken() -> None:
    """1. a Take is out 2. stop 3. Took: not started, it waits in the ledger for the next run."""
    run = Bench("a", up=False)
    run.slow = True
    run.up("a")
    stop(run)
    run.said()
    run.feed(Took((run.attempt(run.job("a"), 1, "a"),), QueueView.MORE))
    assert run.said() == ["Record 1.1 cancelled queued", "Finish stopped"]


def test_stop_while_a_retry_is_recorded() -> None:
    """1. a Begin is out 2. stop: not over yet 3. Began: it waits for the next run."""
    run = Bench("a", 1, options=RETRY)
    run.exit("1.1", 1)
    run.slow = True
    run.wait(0)
    stop(run)
    begin = next(o for o in run.orders if isinstance(o, Begin))
    run.said()
    run.feed(Began(begin.waiting, "a", run.attempt(begin.waiting.job, 2, "a")))
    assert run.said() == ["Record 1.2 cancelled queued", "Finish stopped"]


def test_stop_starts_no_retries() -> None:
    """1. stop 2. a job fails and has retries 3. it waits in the ledger; stopped."""
    run = Bench("a", 1, options=RETRY)
    stop(run)
    run.exit("1.1", 1)
    assert run.said()[1:] == ["Record 1.1 failed queued", "Finish stopped"]


def test_stop_while_a_start_is_in_doubt() -> None:
    """1. cut, stop 2. back: absent 3. fenced, not sent again 4. it waits for the next run."""
    run = Bench("a", 1)
    run.down("a")
    stop(run)
    run.up("a")
    run.report("1.1", Spot.ABSENT)
    run.report("1.1", Spot.FENCED)
    assert run.said()[1:] == ["Ask 1.1", "Fence 1.1", "Record 1.1 cancelled queued keep", "Finish stopped"]


def test_stop_while_a_job_runs_unseen() -> None:
    """1. cut, stop 2. back: running 3. it may finish."""
    run = Bench("a", 1)
    run.down("a")
    stop(run)
    run.up("a")
    run.report("1.1", Spot.RUNNING)
    run.exit("1.1")
    assert run.said()[1:] == ["Ask 1.1", "Attach 1.1", "Record 1.1 succeeded", "Finish stopped"]


def test_stop_does_not_wait_for_the_dead() -> None:
    """1. a is gone for good with a job 2. stop 3. stopped: the next run takes the job up."""
    run = Bench("a b", 1, daemon=True)
    run.down("a", final=True)
    stop(run)
    assert run.said()[1:] == ["Finish stopped"]


def test_stop_now_ends_what_runs() -> None:
    """1. stop, then stop now 2. killed 3. cancelled, no retry 4. stopped."""
    run = Bench("a", 2, options=RETRY)
    stop(run)
    stop(run, StopLevel.NOW)
    run.exit("1.1", 143)
    run.killed("1.1")
    assert run.said()[1:] == ["Kill 1.1", "Record 1.1 cancelled", "Finish stopped"]


def test_a_softer_stop_does_not_soften() -> None:
    """1. stop now 2. stop 3. still now."""
    run = Bench("a", 1)
    stop(run, StopLevel.NOW)
    stop(run)
    assert run.state.stop is StopLevel.NOW


def test_stop_now_does_not_wait_long_for_the_unreachable() -> None:
    """1. a is away 2. stop now 3. 15 s 4. left: the next run takes its job up."""
    run = Bench("a", 1)
    run.down("a")
    stop(run, StopLevel.NOW)
    run.said()
    run.wait(14)
    assert run.said() == []
    run.wait(1)
    assert run.said() == ["Finish left"]


def test_stop_now_waits_for_a_kill_that_takes_its_time() -> None:
    """1. stop now, a's job ignores TERM for 20 s 2. not left meanwhile 3. stopped when it is dead."""
    run = Bench("a", 1)
    stop(run, StopLevel.NOW)
    run.wait(20)
    run.exit("1.1", 137)
    run.killed("1.1")
    assert run.said()[1:] == ["Kill 1.1", "Record 1.1 cancelled", "Finish stopped"]


def test_leave_leaves_at_once() -> None:
    """1. leave 2. nothing is killed; the run is over, and deaf."""
    run = Bench("a", 1)
    stop(run, StopLevel.LEAVE)
    assert run.said()[1:] == ["Finish left"]
    assert run.feed(Exited(full("1.1"), 0)) == []


def test_what_has_ended_does_not_time_out_while_its_output_comes() -> None:
    """1. it ends in time 2. its output takes longer than the timeout 3. it succeeded, after what it took itself."""
    run = Bench("a", 1, options=JobOptions(timeout=10.0, retries=1))
    run.wait(4)
    run.feed(Over(full("1.1")))
    run.wait(60)
    run.said()
    run.exit("1.1")
    (record,) = run.records()
    assert (record.end.state, record.end.duration, record.next) == (
        JobState.SUCCEEDED,
        4.0,
        JobState.SUCCEEDED,
    )


def test_what_has_ended_is_not_cancelled_while_its_output_comes() -> None:
    """1. it has ended 2. the user cancels all 3. nothing is sent; it ended as it did."""
    run = Bench("a", 1)
    run.feed(Over(full("1.1")))
    run.said()
    run.feed(ALL)
    assert run.said() == []
    run.exit("1.1")
    assert run.said()[0] == "Record 1.1 succeeded"


def test_what_is_being_killed_is_not_over_by_itself() -> None:
    """1. the timeout's kill is out 2. it ends, with output that comes for long 3. timed out."""
    run = Bench("a", 1, options=JobOptions(timeout=10.0))
    run.wait(10)
    run.feed(Over(full("1.1")))
    run.killed("1.1")
    run.exit("1.1", 143)
    (record,) = run.records()
    assert record.end.state is JobState.TIMED_OUT
