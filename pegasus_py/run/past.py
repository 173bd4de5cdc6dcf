"""What earlier runs have left to this one, from the ledger: attempts to take up, jobs that wait, things to sweep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from pegasus_py.core.model import RETRYABLE, Attempt, SubNode
from pegasus_py.core.moves import Fact, Resumed, Waiting
from pegasus_py.run.leftovers import Leftovers
from pegasus_py.store.ledger import Ledger
from pegasus_py.store.ledger_schema import AttemptRow


class Past(Struct, frozen=True):
    """`facts` are what the scheduler is told first; `collectors` are sub-nodes that only give back old results."""

    facts: tuple[Fact, ...]
    collectors: tuple[SubNode, ...]
    leftovers: Leftovers
    began: dict[str, float]
    """When the attempts to take up were recorded, by id, in seconds of the wall clock."""


def take_up(ledger: Ledger, subnodes: Iterable[SubNode], now: float) -> Past:
    """Read it all, before the run has recorded anything. `now` is the wall clock's."""
    open_attempts = _Placed({s.name: s for s in subnodes})
    facts: list[Fact] = []
    unfinished: set[int] = set()
    began: dict[str, float] = {}
    for attempt in ledger.open_attempts():
        rows = ledger.attempts(attempt.job.id)[: attempt.number]
        began[attempt.id] = rows[-1].began
        elapsed = max(0.0, now - rows[-1].began)
        tries = _tries(rows[:-1]) + 1
        facts.append(Resumed(open_attempts.place(attempt), elapsed, tries, rows[-1].unwanted))
        unfinished.add(attempt.job.id)
    for job, attempts, due in ledger.waiting_jobs():
        rows = ledger.attempts(job.id)
        last_host = rows[-1].attempt.hostname if rows else None
        facts.append(Waiting(job, attempts + 1, _tries(rows), last_host, max(0.0, due - now)))
        unfinished.add(job.id)
    leftovers = Leftovers(ledger.uncleared(), unfinished, ledger.next_job_id)
    return Past(tuple(facts), tuple(open_attempts.collectors), leftovers, began)


def _tries(rows: Sequence[AttemptRow]) -> int:
    """How many of a job's earlier attempts count as tries: those that were proved never to have started do not."""
    return sum(row.end is not None and row.end.state in RETRYABLE for row in rows)


class _Placed:
    """Finds for each open attempt the sub-node of the very place where it was started, hosts file or not.

    A name that now means another host or spool must not be asked: it would truly say that nothing has started there.
    """

    def __init__(self, known: dict[str, SubNode]) -> None:
        self._by_name = dict(known)
        self.collectors: list[SubNode] = []

    def place(self, attempt: Attempt) -> Attempt:
        name, count = attempt.subnode, 1
        while (there := self._by_name.get(name)) is not None:
            if (there.hostname, there.spool) == (attempt.hostname, attempt.spool):
                return replace(attempt, subnode=name)
            count += 1
            name = f"{attempt.subnode}~{count}"
        made = SubNode(name, attempt.hostname, (("hostname", attempt.hostname),), attempt.spool)
        self._by_name[name] = made
        self.collectors.append(made)
        return replace(attempt, subnode=name)
