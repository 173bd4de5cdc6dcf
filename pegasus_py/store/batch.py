"""What goes into the ledger in one commit."""

from __future__ import annotations

from msgspec import Struct, field

from pegasus_py.core.model import Attempt, End, Job, JobState


class Ended(Struct, frozen=True, gc=False):
    """The end of an attempt, and where that leaves its job.

    `next_state` is the job's state from now on: an end, or QUEUED for a retry, which may start at `due`
    (seconds of the wall clock). `spooled` is False when there is nothing on the node to be cleared.
    """

    attempt: Attempt
    end: End
    next_state: JobState
    due: float | None = None
    spooled: bool = True


class Moved(Struct, frozen=True, gc=False):
    """A job's new state without the end of an attempt: seen running, cancelled while queued, queued again."""

    job: int
    state: JobState
    due: float | None = None


class Batch(Struct):
    """All of it is recorded, or nothing.

    `jobs` are new ones; `started` are attempts about to be sent to their sub-nodes (of new jobs or known ones, whose
    command and sub-node are taken from the attempt); `unwanted` are open attempts that the user wants to be ended;
    `pop` is the record of a pop, which takes the place of the earlier ones unless it `pop_follows` them; `cleared` are
    ids of ended attempts of which nothing is left on a node. Applied in this order: jobs, started, unwanted, ended,
    moved, cleared, pop.
    """

    jobs: list[Job] = field(default_factory=list)
    started: list[Attempt] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    unwanted: list[Attempt] = field(default_factory=list)
    pop: bytes | None = None
    pop_follows: bool = False

    def __bool__(self) -> bool:
        return bool(self.starts or self.ended or self.moved or self.cleared or self.unwanted)

    @property
    def starts(self) -> bool:
        """Whether it makes new work; such a batch is refused on a full disk, others are still recorded."""
        return bool(self.jobs or self.started or self.pop is not None)

    def without_starts(self) -> Batch:
        """The part that must be recorded even on a full disk."""
        return Batch(ended=self.ended, moved=self.moved, cleared=self.cleared, unwanted=self.unwanted)

    def parts(self) -> list[Batch]:
        """Smaller batches that together, in this order, do what this one does; none if it cannot be split.

        Only for a batch that starts nothing.
        """
        kinds = [
            Batch(unwanted=self.unwanted),
            Batch(ended=self.ended),
            Batch(moved=self.moved),
            Batch(cleared=self.cleared),
        ]
        kinds = [kind for kind in kinds if kind]
        if len(kinds) > 1:
            return kinds
        longest = max(len(self.ended), len(self.moved), len(self.cleared), len(self.unwanted))
        if longest < 2:
            return []
        first, second = slice(longest // 2), slice(longest // 2, None)
        return [
            Batch(
                ended=self.ended[part],
                moved=self.moved[part],
                cleared=self.cleared[part],
                unwanted=self.unwanted[part],
            )
            for part in (first, second)
        ]
