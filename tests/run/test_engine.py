"""What a turn records, and what follows when the disk takes nothing."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pegasus_py.core.events import Ended as EndedEvent
from pegasus_py.core.events import Event, Note, QueueBad, QueueMended
from pegasus_py.core.model import Attempt, JobOptions, JobState
from pegasus_py.core.moves import (
    CancelAsked,
    Closed,
    Exited,
    Kill,
    Opened,
    Outcome,
    Over,
    Send,
    StopAsked,
    StopLevel,
)
from pegasus_py.core.state import Settings, new_state
from pegasus_py.errors import StorageError
from pegasus_py.run import engine as engine_module
from pegasus_py.run import queuewatch
from pegasus_py.run.engine import Engine, Stores
from pegasus_py.run.taker import Taker
from pegasus_py.store import disk, queuefile
from pegasus_py.store.batch import Batch
from pegasus_py.store.filewatch import FileWatch
from pegasus_py.store.ledger import Ledger
from pegasus_py.store.logs import LogFiles
from pegasus_py.store.queuefile import QueueFile
from tests.run.fakes import NODE, until


class Disk:
    """A ledger that refuses as long as `refuses` says so; `commits` are those that were made."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.refuses: Callable[[Batch], bool] = lambda batch: False
        self.commits: list[Batch] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def commit(self, batch: Batch) -> None:
        if self.refuses(batch):
            raise StorageError("ledger.db", "No space left on device")
        self._ledger.commit(batch)
        self.commits.append(batch)


class FakeLink:
    reason = ""

    def __init__(self) -> None:
        self.orders: list[Any] = []
        self.introduced = 0

    def introduce(self) -> None:
        self.introduced += 1

    def perform(self, order: Any) -> None:
        self.orders.append(order)

    def clear(self, attempt: Attempt, *, keep: bool, whole: bool = True) -> None:
        pass

    @property
    def sent(self) -> list[Attempt]:
        return [order.attempt for order in self.orders if isinstance(order, Send)]


class Run:
    """An engine on real files with one sub-node that the test plays."""

    def __init__(self, directory: Path, queue: str, **settings: Any) -> None:
        self.path = directory / "queue.yaml"
        self.path.write_text(queue)
        (directory / "logs").mkdir()
        self.ledger = Ledger.open(directory / "ledger.db", ballast=0)
        self.ledger.begin_run("queue")
        self.disk = Disk(self.ledger)
        self.events: list[Event] = []
        self.link = FakeLink()
        file = QueueFile(self.path)
        state = new_state(Settings(**settings), [NODE])
        self.engine = Engine(
            state,
            Taker(file, {NODE.name: NODE}, self.ledger.queue_id, 1),
            Stores(file, self.disk, LogFiles(directory / "logs")),  # type: ignore[arg-type]
            self.events.append,
        )
        self.engine.links = {NODE.name: self.link}  # type: ignore[dict-item]

    @asynccontextmanager
    async def going(self) -> AsyncIterator[asyncio.Task[Outcome]]:
        task = asyncio.create_task(self.engine.run())
        try:
            yield task
            async with asyncio.timeout(20):
                await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.engine.close()
            self.ledger.close()

    async def start(self, count: int) -> Attempt:
        await until(lambda: len(self.link.sent) >= count)
        return self.link.sent[count - 1]


async def test_a_retry_is_not_recorded_before_the_end_that_led_to_it(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(engine_module, "STORAGE_RETRY", 0.05)
    run = Run(tmp_path, "- false\n", defaults=JobOptions(retries=1), begin_retry=0.0)
    async with run.going():
        run.engine.fact(Opened(NODE.name))
        first = await run.start(1)
        # The disk takes no end for a moment, but would take a start.
        left = 2

        def refuses(batch: Batch) -> bool:
            nonlocal left
            left -= bool(batch.ended)
            return bool(batch.ended) and left >= 0

        run.disk.refuses = refuses
        run.engine.fact(Exited(first.id, 1))
        second = await run.start(2)
        ends = [i for i, batch in enumerate(run.disk.commits) if batch.ended]
        starts = [i for i, batch in enumerate(run.disk.commits) if second in batch.started]
        assert ends and ends < starts and run.ledger.jobs()[0].state is JobState.STARTING
        run.engine.fact(Exited(second.id, 0))
    assert run.engine.state.outcome is Outcome.DONE


async def test_ends_that_are_recorded_at_the_very_last_are_told(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(engine_module, "STORAGE_RETRY", 0.05)
    run = Run(tmp_path, "- false\n")
    async with run.going():
        run.engine.fact(Opened(NODE.name))
        first = await run.start(1)
        run.disk.refuses = lambda batch: bool(batch.ended)
        run.engine.fact(StopAsked(StopLevel.FINISH))
        run.engine.fact(Exited(first.id, 1))
        await until(lambda: run.engine.storage_failed)
        run.disk.refuses = lambda batch: False
    assert [e.end.state for e in run.events if isinstance(e, EndedEvent)] == [JobState.FAILED]
    assert not run.engine.storage_failed


async def test_a_run_whose_results_cannot_be_recorded_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(engine_module, "STORAGE_RETRY", 0.01)
    run = Run(tmp_path, "- true\n")
    async with run.going():
        run.engine.fact(Opened(NODE.name))
        first = await run.start(1)
        run.disk.refuses = lambda batch: True
        run.engine.fact(StopAsked(StopLevel.FINISH))
        run.engine.fact(Exited(first.id, 0))
    assert run.engine.storage_failed
    assert not [e for e in run.events if isinstance(e, EndedEvent)]


async def test_a_cancelled_retry_stays_cancelled_when_the_disk_was_full(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(engine_module, "STORAGE_RETRY", 0.05)
    run = Run(tmp_path, "- false\n", defaults=JobOptions(retries=1, retry_delay=3600.0))
    ended: list[int] = []
    run.engine.on_end = lambda job, event: ended.append(job)
    async with run.going():
        run.engine.fact(Opened(NODE.name))
        first = await run.start(1)
        run.engine.fact(Exited(first.id, 1))
        await until(lambda: run.engine.state.waiting)
        run.disk.refuses = lambda batch: bool(batch.moved)
        run.engine.fact(CancelAsked(frozenset({1})))
        await until(lambda: run.engine.storage_failed)
        assert not ended
        run.disk.refuses = lambda batch: False
        await until(lambda: ended == [1])
        assert run.ledger.jobs()[0].state is JobState.CANCELLED


async def test_an_order_for_a_session_that_is_lost_in_the_same_turn_does_not_leave(tmp_path: Path) -> None:
    run = Run(tmp_path, "- true\n")
    async with run.going():
        run.engine.fact(Opened(NODE.name))
        first = await run.start(1)
        run.link.orders.clear()
        # Two changes of the connection in one turn: only the last session is asked, and once.
        for fact in (Closed(NODE.name), Opened(NODE.name), Closed(NODE.name), Opened(NODE.name)):
            run.engine.fact(fact)
        await until(lambda: run.link.introduced == 3 and run.link.orders)
        assert [type(order).__name__ for order in run.link.orders] == ["Ask"]
        run.engine.fact(Exited(first.id, 0))


async def test_the_queue_is_not_touched_after_a_stop_was_acknowledged(tmp_path: Path) -> None:
    run = Run(tmp_path, "# mine\n- echo one\n- echo two\n- echo three\n")
    async with run.going():
        run.engine.fact(Opened(NODE.name))
        first = await run.start(1)
        acknowledged = asyncio.Event()
        run.engine.fact(StopAsked(StopLevel.FINISH), acknowledged.set)
        await acknowledged.wait()
        before = (run.path.read_bytes(), run.path.stat().st_ino)
        run.engine.fact(Exited(first.id, 0))
    assert (run.path.read_bytes(), run.path.stat().st_ino) == before
    assert before[0].endswith(b"- echo two\n- echo three\n")


async def test_a_queue_that_was_mended_in_a_locked_editor_is_mended(tmp_path: Path) -> None:
    run = Run(tmp_path, "- [\n")
    async with run.going():
        run.engine.fact(Opened(NODE.name))
        await until(lambda: [e for e in run.events if isinstance(e, QueueBad)])
        with QueueFile(run.path).hold(note="pegasus lock"):
            run.path.write_text("- true\n")
            await until(lambda: [e for e in run.events if isinstance(e, Note) and "waiting" in e.text])
        first = await run.start(1)
        run.engine.fact(Exited(first.id, 0))
    assert len([e for e in run.events if isinstance(e, QueueMended)]) == 1


async def test_the_ledger_says_which_jobs_cannot_be_reached(tmp_path: Path) -> None:
    """1. A job runs. 2. Its node goes. 3. It comes back. 4. The job ends while the node goes once more."""
    run = Run(tmp_path, "- true\n")

    def state() -> JobState:
        return run.ledger.jobs()[0].state

    async with run.going():
        run.engine.fact(Opened(NODE.name))
        first = await run.start(1)
        run.engine.fact(Closed(NODE.name))
        await until(lambda: state() is JobState.UNREACHABLE)
        assert len(run.ledger.open_attempts()) == 1 and not state().is_end
        run.engine.fact(Opened(NODE.name))
        await until(lambda: state() is JobState.STARTING)
        run.engine.fact(Exited(first.id, 0))
        run.engine.fact(Closed(NODE.name))
        await until(lambda: state().is_end)
        assert state() is JobState.SUCCEEDED
        run.engine.fact(Opened(NODE.name))
    assert run.engine.state.outcome is Outcome.DONE


async def test_what_was_popped_is_flushed_when_nothing_follows(tmp_path: Path, monkeypatch: Any) -> None:
    """A job may run for days; what the user edits meanwhile is not to depend on what the last pop did."""
    monkeypatch.setattr(queuefile, "FLUSH_AFTER", -1)
    monkeypatch.setattr(queuewatch, "WATCH_EVERY", 0.02)
    run = Run(tmp_path, "- one\n- two\n")
    queue = run.engine._stores.queue
    async with run.going():
        run.engine.fact(Opened(NODE.name))
        first = await run.start(1)
        await until(lambda: not queue.is_flush_due)
        assert "- one" not in run.path.read_text()
        run.engine.fact(Exited(first.id, 0))
        second = await run.start(2)
        assert not run.disk.commits[-1].pop_follows
        run.engine.fact(Exited(second.id, 0))


@pytest.mark.parametrize(
    ("entry", "alone"),
    [("- one\n", 1), ("- command: true {{ a }}\n  a: [1, 2, 3]\n", 2)],
    ids=["a short line", "steps of a sweep"],
)
async def test_a_pop_that_none_can_follow_is_flushed_while_its_job_runs(
    tmp_path: Path, monkeypatch: Any, entry: str, alone: int
) -> None:
    """The next start would have to wait for that; a pop that others can follow is flushed along with them."""
    monkeypatch.setattr(queuefile, "FLUSH_AFTER", 3600)
    flushed: list[int] = []

    def fdatasync(fd: int) -> None:
        flushed.append(os.fstat(fd).st_ino)
        os.fdatasync(fd)

    run = Run(tmp_path, f"{entry}- a line that has room for a stamp\n- {'x' * 50}\n")
    async with run.going():
        run.engine.fact(Opened(NODE.name))
        monkeypatch.setattr(disk, "fdatasync", fdatasync)
        for count in range(1, alone + 3 + ("a:" in entry)):
            attempt = await run.start(count)
            if count <= alone:
                await until(lambda: run.path.stat().st_ino in flushed)
                flushed.clear()
            else:
                await asyncio.sleep(20 * engine_module.FLUSH_ALONE_AFTER)
                assert not flushed
            run.engine.fact(Exited(attempt.id, 0))


@pytest.mark.parametrize("can_tell", [True, False], ids=["told by the system", "looks itself"])
async def test_an_idle_daemon_hears_of_a_change(tmp_path: Path, monkeypatch: Any, *, can_tell: bool) -> None:
    """It looks rarely, then, for the system tells; where that cannot, it goes on looking often."""
    monkeypatch.setattr(queuefile, "FLUSH_AFTER", -1)
    monkeypatch.setattr(queuewatch, "WATCH_EVERY", 0.01)
    monkeypatch.setattr(queuewatch, "QUIET_AFTER", 0.05)
    monkeypatch.setattr(queuewatch, "WATCH_RARELY", 3600)
    watches: list[object] = []

    def append() -> None:
        with run.path.open("a") as file:
            file.write("- another\n")

    class Watch(FileWatch):
        def __init__(self, path: Path) -> None:
            watches.append(path)
            if len(watches) == 1:
                # Just before anybody would be told of it.
                append()
            if not can_tell:
                raise OSError("too many")
            super().__init__(path)

    monkeypatch.setattr(queuewatch, "FileWatch", Watch)
    run = Run(tmp_path, "- one\n", daemon=True)
    async with run.going():
        run.engine.fact(Opened(NODE.name))
        run.engine.fact(Exited((await run.start(1)).id, 0))
        for count in (2, 3):
            if count == 3:
                await until(lambda: len(watches) == (2 if can_tell else 1))
                append()
            run.engine.fact(Exited((await run.start(count)).id, 0))
        assert can_tell or len(watches) == 1
        run.engine.fact(StopAsked(StopLevel.FINISH))


async def test_a_flush_that_fails_ends_the_run(tmp_path: Path, monkeypatch: Any) -> None:
    """Nobody knows then what is on the disk: what runs is recorded, and nothing more is taken."""
    monkeypatch.setattr(queuefile, "FLUSH_AFTER", -1)
    monkeypatch.setattr(queuewatch, "WATCH_EVERY", 0.02)

    def fdatasync(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(disk, "fdatasync", fdatasync)
    run = Run(tmp_path, "- one\n- two\n")
    async with run.going() as outcome:
        run.engine.fact(Opened(NODE.name))
        first = await run.start(1)
        await until(lambda: any("cannot flush" in str(event) for event in run.events))
        run.engine.fact(Exited(first.id, 0))
        assert await outcome is Outcome.STOPPED
    assert run.engine.storage_failed
    assert run.link.sent == [first]
    assert any(end.attempt == first for batch in run.disk.commits for end in batch.ended)


@pytest.mark.parametrize(
    ("is_local", "seconds", "flushing", "here"),
    [
        (True, [0, 0, 0], False, [True, True, True]),
        (True, [0.9, 0, 0.9, 0], False, [True, True, True, False]),
        (True, [0.3] * 8, False, [True] * 5 + [False] * 3),
        (True, [10, 10, 0], False, [True, False, False]),
        (True, [1.3, 0, 0, 0], False, [True, False, False, True]),
        (False, [0, 0], False, [False, False]),
        (True, [0, 0], True, [False, False]),
    ],
)
async def test_commits_are_made_in_the_loop_where_that_is_quick(
    tmp_path: Path, monkeypatch: Any, is_local: bool, seconds: list[float], flushing: bool, here: list[bool]
) -> None:
    """What is slow, or would wait for another thread, is left to one: others wait while the loop does."""
    monkeypatch.setattr(QueueFile, "is_flushing", flushing)
    monkeypatch.setattr(engine_module, "SLOW_COMMIT", 0.2)
    now, late = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now() + late[0])
    run = Run(tmp_path, "- one\n" * len(seconds))
    run.ledger.is_local = is_local
    threads: list[bool] = []

    def refuses(batch: Batch) -> bool:
        threads.append(threading.current_thread() is threading.main_thread())
        late[0] += seconds[min(len(threads), len(seconds)) - 1]
        return False

    run.disk.refuses = refuses
    async with run.going():
        run.engine.fact(Opened(NODE.name))
        for number in range(1, len(seconds)):
            run.engine.fact(Exited((await run.start(number)).id, 0))
        run.engine.fact(Exited((await run.start(len(seconds))).id, 0))
    assert threads[: len(here)] == here


async def test_what_arrived_while_the_controller_stood_still_is_looked_at_before_its_timers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that ended in time has not timed out because nobody listened."""
    run = Run(tmp_path, "- true\n", defaults=JobOptions(timeout=100.0))
    async with run.going():
        run.engine.fact(Opened(NODE.name))
        first = await run.start(1)
        now = time.monotonic
        monkeypatch.setattr("pegasus_py.run.engine.time.monotonic", lambda: now() + 1000.0)
        run.engine.fact(Over(first.id))
        await until(lambda: run.engine.state.lives()[0].over)
        run.engine.fact(Exited(first.id, 0))
    ends = [ended.end for batch in run.disk.commits for ended in batch.ended]
    assert [(end.state, end.status) for end in ends] == [(JobState.SUCCEEDED, 0)]
    assert not any(isinstance(order, Kill) for order in run.link.orders)
