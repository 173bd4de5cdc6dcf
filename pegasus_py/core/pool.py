"""Seats that wait for a job, and jobs that wait for a seat. Every operation costs the same however many there are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from pegasus_py.core.moves import Waiting


class FreeSeats:
    """Usable seats with nothing to do, by name; the one that has waited longest comes first."""

    def __init__(self) -> None:
        self._host: OrderedDict[str, str] = OrderedDict()
        self._by_host: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()

    def __contains__(self, name: object) -> bool:
        return name in self._host

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[str]:
        return iter(self._host)

    def add(self, name: str, host: str) -> None:
        """A seat that is free already keeps its place."""
        if name not in self._host:
            self._host[name] = host
            self._by_host.setdefault(host, OrderedDict())[name] = None

    def discard(self, name: str) -> None:
        host = self._host.pop(name, None)
        if host is not None:
            seats = self._by_host[host]
            del seats[name]
            if not seats:
                del self._by_host[host]

    def first(self, count: int) -> tuple[str, ...]:
        return tuple(islice(self._host, count))

    def first_not_on(self, host: str) -> str | None:
        """A seat of any other host, or None."""
        first = next(iter(self._host), None)
        if first is None or self._host[first] != host:
            return first
        other = next((h for h in islice(self._by_host, 2) if h != host), None)
        return None if other is None else next(iter(self._by_host[other]))


class Ready:
    """Jobs that wait for a seat only: those that may run anywhere, but rather not on one host, and pinned ones."""

    def __init__(self) -> None:
        self._anywhere: OrderedDict[str | None, OrderedDict[int, Waiting]] = OrderedDict()
        self._pinned: dict[str | None, OrderedDict[int, Waiting]] = {}
        self.jobs: dict[int, Waiting] = {}
        """All of them, by id."""

    def __contains__(self, job: object) -> bool:
        return job in self.jobs

    def __len__(self) -> int:
        return len(self.jobs)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self.jobs.values())

    def add(self, waiting: Waiting) -> None:
        self.jobs[waiting.job.id] = waiting
        self._row(waiting)[waiting.job.id] = waiting

    def pop(self, job: int) -> Waiting | None:
        waiting = self.jobs.pop(job, None)
        if waiting is not None:
            row = self._row(waiting)
            del row[job]
            if not row:
                rows, key = self._place(waiting)
                del rows[key]
        return waiting

    def avoided(self, count: int) -> list[str | None]:
        """Up to `count` of the hosts that the jobs which may run anywhere would rather avoid."""
        return list(islice(self._anywhere, count))

    def first_avoiding(self, host: str | None) -> Waiting | None:
        row = self._anywhere.get(host)
        return next(iter(row.values())) if row else None

    def first_pinned(self, seat: str) -> Waiting | None:
        row = self._pinned.get(seat)
        return next(iter(row.values())) if row else None

    def _row(self, waiting: Waiting) -> OrderedDict[int, Waiting]:
        rows, key = self._place(waiting)
        return rows.setdefault(key, OrderedDict())

    def _place(self, waiting: Waiting) -> tuple[dict[str | None, OrderedDict[int, Waiting]], str | None]:
        if waiting.pinned:
            return self._pinned, waiting.job.subnode
        return self._anywhere, waiting.avoid
