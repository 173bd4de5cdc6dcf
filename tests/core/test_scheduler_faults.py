"""Connections, nodes and controllers are lost in every phase; what was out is found again, once."""

from __future__ import annotations

from typing import Any

import pytest

from pegasus_py.core.model import JobOptions, JobState, Spot
from pegasus_py.core.moves import Begin, Look, QueueView, Refused, Resumed, Take, Took
from tests.core.scheduling import Bench, full

ONCE_MORE = JobOptions(retries=1)


def cut_and_back(run: Bench, seat: str = "a") -> None:
    run.down(seat)
    run.up(seat)


# --- each answer after a lost connection -----------------------------------------------------------------------


def test_lost_while_running_and_followed_on() -> None:
    """1. the connection goes 2. it comes back, the node is asked 3. it runs 4. followed to its end."""
    run = Bench("a", 1)
    cut_and_back(run)
    run.report("1.1", Spot.RUNNING)
    run.exit("1.1", 3)
    assert run.said() == ["Send 1.1 a", "Ask 1.1", "Attach 1.1", "Record 1.1 failed", "Finish done"]


def test_lost_while_running_and_ended_meanwhile() -> None:
    """1. the connection goes 2. the job ends 3. back and asked: exited 4. its output is fetched, then recorded."""
    run = Bench("a", 1)
    cut_and_back(run)
    run.report("1.1", Spot.EXITED, 0)
    assert run.said() == ["Send 1.1 a", "Ask 1.1", "Attach 1.1"]
    run.exit("1.1")
    assert run.said()[0] == "Record 1.1 succeeded"


def test_the_start_was_lost_and_is_sent_again() -> None:
    """1. the connection goes with the start 2. absent 3. sent again 4. the marker stays: the first may still come."""
    run = Bench("a", 1)
    cut_and_back(run)
    run.report("1.1", Spot.ABSENT)
    run.exit("1.1")
    assert run.said() == ["Send 1.1 a", "Ask 1.1", "Send 1.1 a", "Record 1.1 succeeded keep", "Finish done"]


@pytest.mark.parametrize("spot", [Spot.VANISHED, Spot.REBOOTED])
def test_lost_with_its_node(spot: Spot) -> None:
    """1. the node comes back without it 2. lost, and reported 3. not run again, for nobody asked for that."""
    run = Bench("a", 1)
    cut_and_back(run)
    run.report("1.1", spot)
    assert run.said() == ["Send 1.1 a", "Ask 1.1", "Record 1.1 lost", "Finish done"]


def test_lost_and_retried() -> None:
    """1. lost in a reboot 2. the job has a retry 3. it runs on the other host."""
    run = Bench("a b", 1, options=ONCE_MORE)
    cut_and_back(run)
    run.report("1.1", Spot.REBOOTED)
    run.wait(0)
    assert run.said()[2:] == ["Record 1.1 lost queued", "Begin 1.2 b", "Send 1.2 b"]


def test_fenced_by_somebody_else_goes_back_to_wait() -> None:
    """1. the node says that the marker was taken away 2. it never ran 3. another attempt, no retry used up."""
    run = Bench("a", 1)
    cut_and_back(run)
    run.report("1.1", Spot.FENCED)
    run.wait(0)
    assert run.said()[2:] == ["Record 1.1 cancelled queued keep", "Begin 1.2 a", "Send 1.2 a"]


def test_a_node_that_cannot_tell_is_asked_again() -> None:
    """1. elsewhere 2. five seconds 3. asked again 4. it runs."""
    run = Bench("a", 1)
    cut_and_back(run)
    run.report("1.1", Spot.ELSEWHERE)
    run.wait(5)
    run.report("1.1", Spot.RUNNING)
    assert run.said() == ["Send 1.1 a", "Ask 1.1", "Ask 1.1", "Attach 1.1"]


def test_what_was_seen_running_is_never_started_again() -> None:
    """1. seen running 2. somebody empties the spool 3. cut, back, absent 4. lost, not started twice."""
    run = Bench("a", 1)
    cut_and_back(run)
    run.report("1.1", Spot.RUNNING)
    cut_and_back(run)
    run.said()
    run.report("1.1", Spot.ABSENT)
    assert run.said()[0] == "Record 1.1 lost"


def test_a_start_that_finds_the_marker_is_followed() -> None:
    """1. sent again after a cut 2. the first start got there too: exists 3. attached, not started."""
    run = Bench("a", 1)
    cut_and_back(run)
    run.report("1.1", Spot.ABSENT)
    run.said()
    run.report("1.1", Spot.RUNNING)
    assert run.said() == ["Attach 1.1"]


def test_answers_of_a_lost_connection_do_nothing() -> None:
    """1. asked 2. the connection goes 3. a late answer 4. nothing; asked again when it is back."""
    run = Bench("a", 1)
    cut_and_back(run)
    run.down("a")
    run.said()
    run.report("1.1", Spot.ABSENT)
    assert run.said() == []
    run.up("a")
    assert run.said() == ["Ask 1.1"]


def test_facts_about_the_unknown_are_ignored() -> None:
    """1. an exit, a report, a refusal, an answer to a kill for an attempt that is settled 2. nothing."""
    run = Bench("a", 1, daemon=True)
    run.exit("1.1")
    run.said()
    run.exit("1.1", 1)
    run.report("1.1", Spot.ABSENT)
    run.killed("1.1")
    run.feed(Refused(full("1.1"), "no space"))
    assert run.said() == []


def test_the_connection_goes_while_the_job_is_recorded() -> None:
    """1. a Take is out for a 2. a goes down 3. Took: it was never sent, so b gets it without waiting for a."""
    run = Bench("a b", 1, up=False)
    run.slow = True
    run.up("a", "b")
    run.down("a")
    take = next(o for o in run.orders if isinstance(o, Take))
    run.said()
    run.feed(Took((run.attempt(run.job("a"), 1, "a"),), QueueView.EMPTY))
    run.wait(0)
    assert take.seats == ("a",)
    assert run.said() == ["Record 1.1 cancelled queued", "Begin 1.2 b"]


def test_an_unreachable_node_holds_its_job_and_the_run() -> None:
    """1. the node goes 2. an hour passes 3. the job is neither failed nor started elsewhere, the run waits."""
    run = Bench("a b", 1, options=ONCE_MORE)
    run.down("a")
    run.said()
    run.wait(3600)
    assert run.said() == []


def test_a_node_that_is_gone_for_good_does_not_hold_the_run() -> None:
    """1. its host key changed, say 2. nobody tries again 3. the run ends, the job is the next run's."""
    run = Bench("a b", 1)
    run.down("a", final=True)
    assert run.said() == ["Send 1.1 a", "Finish done"]
    assert len(run.state.seat_of) == 1


# --- refused starts and starts gone astray ---------------------------------------------------------------------


def test_a_refusal_does_not_prove_that_an_earlier_start_is_gone() -> None:
    """1. sent, cut 2. absent, sent again 3. refused 4. the first start may yet arrive: fence before another host."""
    run = Bench("a b", 1)
    cut_and_back(run)
    run.report("1.1", Spot.ABSENT)
    run.said()
    run.feed(Refused(full("1.1"), "no space"))
    assert run.said() == ["Fence 1.1", "SetAside a"]
    run.report("1.1", Spot.FENCED)
    run.wait(0)
    assert run.said() == ["Record 1.1 cancelled queued keep", "Begin 1.2 b", "Send 1.2 b"]


def test_a_fence_that_cannot_be_made_is_tried_later() -> None:
    """1. the fence finds no marker and can make none 2. no frenzy: asked again after a while."""
    run = Bench("a b", 1)
    cut_and_back(run)
    run.report("1.1", Spot.ABSENT)
    run.feed(Refused(full("1.1"), "no space"))
    run.report("1.1", Spot.ABSENT)
    run.said()
    assert run.said() == []
    run.wait(5)
    assert run.said() == ["Ask 1.1"]


# --- lost_after ------------------------------------------------------------------------------------------------


def test_lost_after_frees_the_job_and_haunts_the_seat() -> None:
    """1. a goes away 2. after 10 s lost, and b runs it 3. a is back: fence first 4. it runs: kill 5. then new work."""
    run = Bench("a b", 1, options=JobOptions(retries=1, lost_after=10.0))
    run.down("a")
    run.said()
    run.wait(10)
    assert run.said() == ["Record 1.1 lost queued keep", "Begin 1.2 b", "Send 1.2 b"]
    run.entries = 1
    run.up("a")
    run.feed(Look())
    assert run.said() == ["Fence 1.1"]
    run.report("1.1", Spot.RUNNING)
    assert run.said() == ["Kill 1.1"]
    run.killed("1.1")
    assert run.said() == ["Fence 1.1"]
    run.report("1.1", Spot.EXITED, 143)
    assert run.said() == ["Send 2.1 a"]


def test_a_ghost_survives_a_further_cut() -> None:
    """1. lost by lost_after 2. back, fence 3. cut before the answer 4. back: fence again, no new work before."""
    run = Bench("a", 1, options=JobOptions(lost_after=10.0), daemon=True)
    run.down("a")
    run.wait(10)
    run.entries = 1
    cut_and_back(run)
    run.up("a")
    run.feed(Look())
    run.said()
    run.down("a")
    run.report("1.1", Spot.FENCED)
    run.up("a")
    assert run.said() == ["Fence 1.1"]
    run.report("1.1", Spot.FENCED)
    assert run.said() == ["Send 2.1 a"]


def test_a_ghost_that_can_not_be_fenced_now_is_tried_again() -> None:
    """1. the fence cannot be made 2. five seconds 3. again 4. what cannot be killed is let go."""
    run = Bench("a", 1, options=JobOptions(lost_after=10.0), daemon=True)
    run.down("a")
    run.wait(10)
    run.up("a")
    run.report("1.1", Spot.ABSENT)
    run.said()
    run.wait(5)
    assert run.said() == ["Fence 1.1"]
    run.report("1.1", Spot.STARTING)
    run.killed("1.1", "4711 stuck")
    run.entries = 1
    run.feed(Look())
    assert run.said() == ["Kill 1.1", "Send 2.1 a"]


def test_lost_after_counts_over_flapping_connections_and_unsure_answers() -> None:
    """1. away 6 s 2. back, elsewhere, asked again 3. away 4. ten seconds since it was last seen: lost."""
    run = Bench("a", 1, options=JobOptions(lost_after=10.0))
    run.down("a")
    run.wait(3)
    run.up("a")
    run.report("1.1", Spot.ELSEWHERE)
    run.wait(5)
    run.down("a")
    run.said()
    run.wait(2)
    assert run.said()[0] == "Record 1.1 lost keep"


def test_lost_after_where_the_node_is_there_but_cannot_tell() -> None:
    """1. elsewhere for ten seconds 2. lost 3. its seat is fenced at once, and works on when that is done."""
    run = Bench("a", 1, options=JobOptions(lost_after=9.0), daemon=True)
    cut_and_back(run)
    run.report("1.1", Spot.ELSEWHERE)
    run.wait(5)
    run.report("1.1", Spot.ELSEWHERE)
    run.said()
    run.wait(4)
    assert run.said() == ["Fence 1.1", "Record 1.1 lost keep"]
    run.report("1.1", Spot.ELSEWHERE)
    assert "a" in run.state.free


def test_lost_after_for_what_an_earlier_run_left() -> None:
    """1. a new run, its node never answers 2. lost_after counts from the start of this run."""
    run = Bench("a b", up=False, options=JobOptions(lost_after=10.0))
    run.feed(Resumed(run.attempt(run.job("a"), 1, "a"), 500.0))
    run.up("b")
    run.down("a")
    run.wait(10)
    assert run.said()[0] == "Record 1.1 lost keep"


# --- what an earlier run left ----------------------------------------------------------------------------------


def resumed(seats: str = "a b", **settings: Any) -> Bench:
    run = Bench(seats, up=False, **settings)
    run.feed(Resumed(run.attempt(run.job("a"), 1, "a"), 60.0))
    return run


def test_an_earlier_runs_attempt_is_asked_for_before_its_seat_works() -> None:
    """1. resumed 2. a opens: asked, and a gets nothing 3. exited: fetched 4. recorded; a works."""
    run = resumed()
    run.entries = 1
    run.up("a")
    assert run.said() == ["Ask 1.1"]
    run.report("1.1", Spot.EXITED, 0)
    run.exit("1.1")
    assert run.said() == ["Attach 1.1", "Record 1.1 succeeded", "Send 2.1 a"]


def test_an_earlier_runs_attempt_that_never_started_starts() -> None:
    """1. absent 2. sent; its timeout counts from now 3. the run number keeps older requests out: nothing to keep."""
    run = resumed(options=JobOptions(timeout=30.0))
    run.up("a")
    run.report("1.1", Spot.ABSENT)
    run.wait(29)
    assert run.said() == ["Ask 1.1", "Send 1.1 a"]
    run.exit("1.1")
    assert run.said()[0] == "Record 1.1 succeeded"


def test_it_timed_out_while_nobody_was_there() -> None:
    """1. started a minute ago, timeout 30 s 2. the new run finds it running 3. killed and timed out."""
    run = resumed(options=JobOptions(timeout=30.0))
    run.wait(0)
    run.up("a")
    run.report("1.1", Spot.RUNNING)
    run.exit("1.1", 143)
    run.killed("1.1")
    assert run.said()[:4] == ["Ask 1.1", "Attach 1.1", "Kill 1.1", "Record 1.1 timed-out"]


def test_it_ended_in_time_while_nobody_was_there() -> None:
    """1. its timeout passes while its node is away 2. it had exited 0 before 3. it succeeded."""
    run = resumed(options=JobOptions(timeout=30.0))
    run.wait(0)
    run.up("a")
    run.report("1.1", Spot.EXITED, 0)
    run.exit("1.1", 0)
    assert run.said()[:3] == ["Ask 1.1", "Attach 1.1", "Record 1.1 succeeded"]


def test_resumed_on_a_seat_that_is_already_up() -> None:
    """1. a is up 2. the attempt is told of 3. asked at once."""
    run = Bench("a", 0, daemon=True)
    run.said()
    run.feed(Resumed(run.attempt(run.job("a"), 1, "a"), 1.0))
    assert run.said() == ["Ask 1.1"]


def collecting() -> Bench:
    run = Bench("a", collectors="old", up=False)
    run.feed(Resumed(run.attempt(run.job("old"), 1, "old"), 60.0))
    return run


def test_a_node_that_left_the_hosts_file_gives_back_its_result() -> None:
    """1. old is not in the hosts file 2. it is asked 3. its job ends 4. it gets nothing new, the run ends."""
    run = collecting()
    run.up("a", "old")
    run.report("1.1", Spot.RUNNING)
    run.entries = 1
    run.feed(Look())
    run.exit("2.1")
    run.exit("1.1")
    assert run.said() == [
        "Ask 1.1",
        "Attach 1.1",
        "Send 2.1 a",
        "Record 2.1 succeeded",
        "Record 1.1 succeeded",
        "Finish done",
    ]


def test_a_node_that_left_and_is_away_does_not_hold_the_run() -> None:
    """1. old cannot be reached 2. the run ends without it; its job stays open for another."""
    run = collecting()
    run.up("a")
    assert run.said() == []
    run.down("old")
    assert run.said() == ["Finish done"]


def test_a_node_that_left_is_no_node() -> None:
    """1. only old is there 2. none of the hosts file can be reached: no-nodes."""
    run = collecting()
    run.up("old")
    run.down("a")
    assert run.said()[-1] == "Finish no-nodes"


def test_a_timer_of_an_ended_attempt_does_nothing() -> None:
    """1. timeout 10 s 2. it ends before 3. the timer fires for nobody."""
    run = Bench("a", 1, daemon=True, options=JobOptions(timeout=10.0, lost_after=5.0))
    run.down("a")
    run.up("a")
    run.report("1.1", Spot.RUNNING)
    run.exit("1.1")
    run.said()
    run.wait(20)
    assert run.said() == []


def test_timers_of_ended_attempts_do_not_pile_up() -> None:
    """1. 5,000 jobs with a timeout of a day end at once 2. their timers are gone long before that."""
    run = Bench("a", 5000, options=JobOptions(timeout=86400.0))
    for job in range(1, 5001):
        run.exit(f"{job}.1")
    assert len(run.state.timers) < 3000


def test_two_retries_share_the_free_seats() -> None:
    """1. jobs 1 and 2 fail on a1 and a2 2. b1 and b2 get free 3. both go there, none is begun twice."""
    run = Bench("a1 a2 b1 b2", 4, options=ONCE_MORE)
    run.exit("1.1", 1)
    run.exit("2.1", 1)
    run.wait(0)
    run.exit("3.1")
    run.exit("4.1")
    begun = [(o.waiting.job.id, o.seat) for o in run.orders if isinstance(o, Begin)]
    assert sorted(begun) == [(1, "b1"), (2, "b2")]


def test_a_lost_job_is_counted_as_lost() -> None:
    """1. rebooted 2. the record says lost, without a status, with the reason."""
    run = Bench("a", 1)
    cut_and_back(run)
    run.report("1.1", Spot.REBOOTED)
    [record] = run.records()
    assert (record.end.state, record.end.status) == (JobState.LOST, None)
    assert "restarted" in record.end.reason
