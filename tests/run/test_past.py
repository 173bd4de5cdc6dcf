"""What a run takes up of those before it, from a real ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from pegasus_py.core.model import Attempt, End, Job, JobState, SubNode, Task
from pegasus_py.core.moves import Resumed, Waiting
from pegasus_py.run.past import take_up
from pegasus_py.store.batch import Batch, Ended
from pegasus_py.store.ledger import Ledger

NODE = SubNode("node-1", "host-1", (("hostname", "host-1"),))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db", ballast=0) as made:
        made.begin_run("queue")
        yield made


def _start(ledger: Ledger, job: int, *ends: JobState, node: SubNode = NODE, is_open: bool = True) -> Attempt:
    """A job with attempts that ended so, and an open one."""
    made = Job(job, Task("true"), "true", node.name)
    attempts = [
        Attempt(made, number, node.name, ledger.queue_id, node.hostname, node.spool)
        for number in range(1, len(ends) + 2)
    ]
    for number, (each, how) in enumerate(zip(attempts, ends, strict=False)):
        ledger.commit(Batch(jobs=[] if number else [made], started=[each]))
        ledger.commit(Batch(ended=[Ended(each, End(how), JobState.QUEUED, 0.0)]))
    if is_open:
        ledger.commit(Batch(jobs=[] if ends else [made], started=[attempts[-1]]))
    return attempts[-1]


def test_attempts_that_never_started_do_not_count_as_tries(ledger: Ledger) -> None:
    _start(ledger, 1, JobState.CANCELLED, JobState.FAILED, JobState.CANCELLED)
    _start(ledger, 2, JobState.LOST, JobState.CANCELLED, is_open=False)
    resumed, waiting = take_up(ledger, [NODE], 0.0).facts
    assert isinstance(resumed, Resumed) and isinstance(waiting, Waiting)
    assert (resumed.attempt.number, resumed.tries) == (4, 2)
    assert (waiting.number, waiting.tries, waiting.avoid) == (3, 1, "host-1")


@pytest.mark.parametrize(
    "now", [replace(NODE, spool="/scratch"), replace(NODE, hostname="host-9")], ids=["spool", "host"]
)
def test_an_open_attempt_is_looked_for_where_it_was_started(ledger: Ledger, now: SubNode) -> None:
    attempt = _start(ledger, 1)
    past = take_up(ledger, [now], 0.0)
    (resumed,), (collector,) = past.facts, past.collectors
    assert isinstance(resumed, Resumed)
    assert (collector.hostname, collector.spool) == ("host-1", None)
    assert resumed.attempt == replace(attempt, subnode=collector.name)
    assert collector.name != now.name


def test_a_host_that_is_gone_gets_one_collector(ledger: Ledger) -> None:
    _start(ledger, 1)
    _start(ledger, 2)
    past = take_up(ledger, [SubNode("other", "other", ())], 0.0)
    assert [c.name for c in past.collectors] == ["node-1"] and len(past.began) == 2


def test_rounds_are_counted_on(ledger: Ledger) -> None:
    assert ledger.last_round == 0
    made = Job(1, Task("true"), "true", "node-1", None, 7)
    ledger.commit(Batch(jobs=[made]))
    _start(ledger, 2)
    assert ledger.last_round == 7
