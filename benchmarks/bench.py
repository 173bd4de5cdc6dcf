"""What a case is given: the servers, the peers, how much to do, and where to say how it goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.controller import Queue
from benchmarks.field import Field
from benchmarks.measure import Figure, interleaved, ratio
from benchmarks.peers import Peers
from benchmarks.report import Row, Target


@dataclass(frozen=True)
class Bench:
    """`smoke`: only see that it works, with little of everything. `count` is how many rounds were asked for."""

    field: Field
    peers: Peers
    smoke: bool
    count: int

    def size(self, full: int, smoke: int) -> int:
        return smoke if self.smoke else full

    def rounds(self, ways: Mapping[str, Callable[[], float]], most: int = 99) -> dict[str, Figure]:
        return interleaved(min(self.count, most), ways, self.say)

    def queue(self, hosts: str, queue: str = "") -> Queue:
        return Queue(self.field.directory(), self.field.environment(), hosts, queue)

    def say(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)


def at_least(bound: float) -> Target:
    """For the ratio."""
    return Target(bound, at_least=True, times=True)


def at_most(bound: float) -> Target:
    """For the ratio."""
    return Target(bound, at_least=False, times=True)


def below(bound: float) -> Target:
    """For the figure itself."""
    return Target(bound, at_least=False, times=False)


def compared(
    what: str, unit: str, figures: Mapping[str, Figure], ours: str, theirs: str, target: Target | None = None
) -> Row:
    """A row of two of the figures, as far as they are there."""
    a, b = figures.get(ours), figures.get(theirs)
    return Row(what, unit, a, theirs, b, ratio(a, b) if a and b else None, target)
