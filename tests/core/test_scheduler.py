"""The scheduler in fair weather: jobs run, retries find their place, and the run ends when it should."""

from __future__ import annotations

from pegasus_py.core.model import JobOptions, JobState
from pegasus_py.core.moves import Began, Begin, Look, Outcome, QueueView, Refused, SetAside, Took, Waiting
from tests.core.scheduling import Bench, full


def test_the_ordinary_way() -> None:
    """1. two seats, three entries 2. each seat gets one 3. the one that is free first gets the third 4. done."""
    run = Bench("a b", 3)
    assert run.said() == ["Send 1.1 a", "Send 2.1 b"]
    run.exit("2.1")
    assert run.said() == ["Record 2.1 succeeded", "Send 3.1 b"]
    run.exit("1.1", 3)
    [record] = run.records()
    assert (record.end.state, record.end.status) == (JobState.FAILED, 3)
    run.exit("3.1")
    assert run.said() == ["Record 3.1 succeeded", "Finish done"]


def test_nothing_starts_before_a_seat_is_up() -> None:
    """1. nothing is up 2. the entries stay where they are 3. one seat opens 4. it gets the first."""
    run = Bench("a b", 2, up=False)
    assert run.said() == []
    run.up("b")
    assert run.said() == ["Send 1.1 b"]


def test_the_duration_is_what_the_controller_saw() -> None:
    """1. started at 0 2. exits at 4.5."""
    run = Bench("a", 1)
    run.now = 4.5
    run.exit("1.1")
    assert run.records()[0].end.duration == 4.5


def test_an_entry_added_while_the_last_command_runs_is_picked_up() -> None:
    """1. the queue is seen empty 2. an entry is added, nobody noticed 3. the last command ends 4. a last look."""
    run = Bench("a", 1)
    run.feed(Look())
    run.said()
    run.entries = 1
    run.exit("1.1")
    assert run.said() == ["Record 1.1 succeeded", "Send 2.1 a"]


def test_the_last_look_happens_with_no_free_seat_too() -> None:
    """1. the only seat goes down while idle 2. nothing is live 3. still the queue is looked at, and has more."""
    run = Bench("a b", 1)
    run.down("b")
    run.exit("1.1")
    assert run.said()[-1] == "Finish done"


def test_an_entry_added_to_an_empty_queue_starts_at_once() -> None:
    """1. a runs, b is idle, the queue is empty 2. an entry is added and noticed 3. b gets it."""
    run = Bench("a b", 1)
    run.said()
    run.entries = 1
    run.feed(Look())
    assert run.said() == ["Send 2.1 b"]


def test_a_blocked_queue_is_looked_at_when_told_so() -> None:
    """1. the queue cannot be read 2. the run neither ends nor asks again 3. Look 4. it goes on."""
    run = Bench("a", up=False)
    run.slow = True
    run.up("a")
    run.feed(Took((), QueueView.BLOCKED))
    run.said()
    run.wait(100)
    assert run.said() == []
    run.slow, run.entries = False, 1
    run.feed(Look())
    assert run.said() == ["Send 1.1 a"]


def test_a_daemon_does_not_end() -> None:
    """1. the queue is empty 2. nothing is live 3. no Finish; an entry starts."""
    run = Bench("a", 1, daemon=True)
    run.exit("1.1")
    assert run.said() == ["Send 1.1 a", "Record 1.1 succeeded"]
    run.entries = 1
    run.feed(Look())
    assert run.said() == ["Send 2.1 a"]


# --- retries -------------------------------------------------------------------------------------------------


def test_a_retry_prefers_another_host() -> None:
    """1. job 1 fails on a 2. a is free, b is busy: it waits 3. b gets free 4. it runs there."""
    run = Bench("a b", 2, options=JobOptions(retries=1))
    run.exit("1.1", 1)
    run.wait(0)
    assert run.said()[2:] == ["Record 1.1 failed queued"]
    run.exit("2.1")
    assert run.said() == ["Record 2.1 succeeded", "Begin 1.2 b", "Send 1.2 b"]


def test_a_retry_goes_back_when_there_is_no_other_host() -> None:
    """1. two seats of one host 2. the retry takes either."""
    run = Bench("a1 a2", 1, options=JobOptions(retries=1))
    run.exit("1.1", 1)
    run.wait(0)
    assert run.said()[-1] == "Send 1.2 a2"


def test_retries_end_and_keep_their_delay() -> None:
    """1. fails 2. waits 30 s 3. fails again 4. no retry is left."""
    run = Bench("a", 1, options=JobOptions(retries=1, retry_delay=30.0))
    run.exit("1.1", 1)
    run.said()
    run.wait(29)
    assert run.said() == []
    run.wait(1)
    assert run.said() == ["Begin 1.2 a", "Send 1.2 a"]
    run.exit("1.2", 1)
    assert run.said() == ["Record 1.2 failed", "Finish done"]


def test_only_what_retry_on_names_is_retried() -> None:
    """1. retry_on is lost 2. the job fails 3. that is its end."""
    run = Bench("a", 1, options=JobOptions(retries=5, retry_on=(JobState.LOST,)))
    run.exit("1.1", 1)
    assert "Record 1.1 failed" in run.said()


def test_waiting_jobs_of_an_earlier_run_come_first() -> None:
    """1. job 7 waits from an earlier run 2. its delay passes 3. it gets the seat before the queue does."""
    run = Bench("a", 1, up=False, first_id=8)
    run.feed(Waiting(run.job("b"), 2, 1, None, 0.0))
    run.wait(0)
    run.up("a")
    assert run.said() == ["Begin 8.2 a", "Send 8.2 a"]


def test_a_retry_that_cannot_be_recorded_is_not_tried_in_a_frenzy() -> None:
    """1. the disk is full when the retry begins 2. it is tried again after a second, not at once."""
    run = Bench("a", 1, options=JobOptions(retries=1))
    run.slow = True
    run.exit("1.1", 1)
    run.feed(Took((), QueueView.BLOCKED))
    run.wait(0)
    begin = next(o for o in run.orders if isinstance(o, Begin))
    run.said()
    run.feed(Began(begin.waiting, "a", None))
    assert run.said() == []
    run.wait(1)
    assert run.said() == ["Begin 1.2 a"]


def test_a_retry_that_does_not_render_is_dropped() -> None:
    """1. the retry's template fails on the new seat 2. Drop, with the reason 3. the run goes on to its end."""
    run = Bench("a", 1, options=JobOptions(retries=1))
    run.exit("1.1", 1)
    run.slow = True
    run.wait(0)
    begin = next(o for o in run.orders if isinstance(o, Begin))
    run.said()
    run.slow = False
    run.feed(Began(begin.waiting, "a", None, "no such parameter"))
    assert run.said() == ["Drop 1", "Finish done"]


# --- seats that are set aside --------------------------------------------------------------------------------


def test_a_black_hole_is_set_aside_for_a_while() -> None:
    """1. a fails all at once, b succeeds 2. after two a is set aside 3. b gets all 4. a returns after its rest."""
    run = Bench("a b", 9, set_aside_after=2, set_aside_for=60.0)
    run.exit("1.1", 1)
    run.exit("2.1", 0)
    run.said()
    run.exit("3.1", 1)
    assert run.said() == ["Record 3.1 failed", "SetAside a"]
    run.wait(59)
    assert run.said() == []
    run.wait(1)
    assert run.said() == ["Send 5.1 a"]


def test_a_black_hole_is_set_aside_while_long_jobs_have_no_success_to_show() -> None:
    """1. a fails all at once, b's job has been running for longer than that 2. at the next two a is set aside."""
    run = Bench("a b", 9, set_aside_after=2, quick_failure=1.0)
    run.exit("1.1", 1)
    run.exit("3.1", 1)
    assert not [o for o in run.orders if isinstance(o, SetAside)]
    run.wait(1)
    run.exit("4.1", 0)
    run.exit("5.1", 1)
    run.now += 0.5
    run.said()
    run.exit("6.1", 1)
    assert "SetAside a" in run.said()


def test_when_all_fail_nobody_is_set_aside() -> None:
    """1. every job fails on both 2. it is the jobs, not the nodes."""
    run = Bench("a b", 20, set_aside_after=2)
    for job in range(1, 21):
        run.exit(f"{job}.1", 1)
    assert not [o for o in run.orders if isinstance(o, SetAside)]
    assert run.state.outcome is Outcome.DONE


def test_slow_failures_are_the_jobs_own() -> None:
    """1. a's jobs fail after 10 s each, b's succeed 2. a stays."""
    run = Bench("a b", 20, set_aside_after=2)
    for _ in range(5):
        run.now += 10
        for attempt in list(run.state.seat_of):
            run.exit(attempt.removesuffix(f".{full('')[1:]}"), 1 if run.state.seat_of[attempt] == "a" else 0)
    assert not [o for o in run.orders if isinstance(o, SetAside)]


def test_each_rest_is_longer_until_something_succeeds() -> None:
    """1. refused twice: 60 s, then 120 s 2. something succeeds 3. refused: 60 s again."""
    run = Bench("a", 1)
    rests = []
    for number in (1, 2):
        run.feed(Refused(full(f"1.{number}"), "disk full"))
        rests += [o.seconds for o in run.orders if isinstance(o, SetAside)]
        run.said()
        run.wait(rests[-1])
    run.entries = 1
    run.feed(Look())
    run.exit("1.3")
    run.feed(Refused(full("2.1"), "disk full"))
    rests += [o.seconds for o in run.orders if isinstance(o, SetAside)]
    assert rests == [60, 120, 60]


def test_a_refused_start_goes_elsewhere_and_costs_no_try() -> None:
    """1. a proves that it did not start the job 2. the job goes to b 3. its one retry is still there."""
    run = Bench("a b", 1, options=JobOptions(retries=1))
    run.feed(Refused(full("1.1"), "no space"))
    run.wait(0)
    assert run.said() == [
        "Send 1.1 a",
        "Record 1.1 cancelled queued",
        "SetAside a",
        "Begin 1.2 b",
        "Send 1.2 b",
    ]
    run.exit("1.2", 1)
    assert run.said()[0] == "Record 1.2 failed queued"


# --- nodes at the start --------------------------------------------------------------------------------------


def test_no_node_at_all() -> None:
    """1. all fail to connect 2. the queue is not touched 3. the run ends at once."""
    run = Bench("a b", 3, up=False)
    run.down("a")
    assert run.said() == []
    run.down("b")
    assert run.said() == ["Finish no-nodes"]
    assert run.entries == 3


def test_one_node_is_enough() -> None:
    """1. a cannot be reached 2. b does it all."""
    run = Bench("a b", 1, up=False)
    run.down("a", final=True)
    run.up("b")
    run.exit("1.1")
    assert run.said() == ["Send 1.1 b", "Record 1.1 succeeded", "Finish done"]


def test_require_all_waits_and_insists() -> None:
    """1. a is up, nothing starts 2. b fails 3. no-nodes, the queue untouched."""
    run = Bench("a b", 3, up=False, require_all=True)
    run.up("a")
    assert run.said() == []
    run.down("b")
    assert run.said() == ["Finish no-nodes"]


def test_require_all_is_about_the_start_only() -> None:
    """1. both are up, jobs start 2. b goes down 3. the run goes on."""
    run = Bench("a b", 3, up=False, require_all=True)
    run.up("a", "b")
    run.down("b")
    run.exit("1.1")
    assert "Send 3.1 a" in run.said()


def test_all_nodes_gone_for_good_ends_the_run_with_retries_left() -> None:
    """1. job 1 is lost with its node, and waits for another 2. no node is left 3. it stays for the next run."""
    run = Bench("a b", 1, options=JobOptions(retries=3))
    run.exit("1.1", 1)
    run.down("a", final=True)
    run.down("b", final=True)
    assert run.said()[-1] == "Finish no-nodes"
