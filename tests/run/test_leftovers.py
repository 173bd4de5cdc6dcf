"""What an earlier run left on nodes is swept once for each spool, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pegasus_py.core.model import Attempt, Spot, SubNode
from pegasus_py.errors import NodeError, StorageError
from pegasus_py.run.leftovers import Leftovers, Sweeper
from pegasus_py.store.logs import LogFiles
from tests.run.fakes import NODE, FakeSession, attempt, report

OTHER = SubNode("node-2", "node-2", (("hostname", "node-2"),))
SCRATCH = SubNode("node-1", "node-1", (("hostname", "node-1"),), "/scratch")


class Broom:
    def __init__(self, tmp_path: Path, uncleared: Iterable[Attempt], unfinished: Iterable[int] = ()) -> None:
        self.cleared: list[str] = []
        self.full = False
        self.events: list[Any] = []
        self.leftovers = Leftovers(uncleared, unfinished, 100)
        self.sweeper = Sweeper(
            self.leftovers,
            LogFiles(tmp_path),
            grace=1.0,
            flush=self._flush,
            cleared=self.cleared.extend,
            tell=self.events.append,
        )

    async def _flush(self, attempts: list[Attempt]) -> None:
        if self.full:
            raise StorageError("logs", "No space left on device")

    async def sweep(self, session: FakeSession) -> None:
        await self.sweeper.sweep(session)  # type: ignore[arg-type]


def _session(node: SubNode, spots: dict[Attempt, Spot], listed: Iterable[Attempt] = ()) -> FakeSession:
    session = FakeSession(node, None)  # type: ignore[arg-type]
    by_id = {each.id: report(each, spot) for each, spot in spots.items()}
    session.answers["fence"] = lambda id_: by_id[id_]
    session.answers["list"] = lambda _: [each.id for each in listed]
    return session


def _gone(session: FakeSession) -> set[str]:
    return {each for verb, ids in session.said if verb == "clear" for each in ids}


async def test_only_what_nobody_expects_any_more_goes(tmp_path: Path) -> None:
    ended, elsewhere, retried = attempt(5), attempt(6, node=OTHER), attempt(7, 2)
    broom = Broom(tmp_path, [ended, elsewhere, attempt(7, 1)], unfinished=[7])
    # A home on NFS: the spool of node-1 is that of node-2, where job 6 may still run, and 7.2 was started just now.
    listed = [ended, elsewhere, retried, attempt(8), attempt(200)]
    session = _session(NODE, {ended: Spot.EXITED, attempt(7, 1): Spot.EXITED}, listed)
    await broom.sweep(session)
    assert _gone(session) == {ended.id, attempt(7, 1).id, attempt(8).id}
    assert broom.cleared == [ended.id, attempt(7, 1).id]


async def test_each_spool_is_asked_for_what_was_left_in_it(tmp_path: Path) -> None:
    here, there = attempt(1), attempt(2, node=SCRATCH)
    broom = Broom(tmp_path, [here, there])
    first, second = _session(NODE, {here: Spot.EXITED}), _session(SCRATCH, {there: Spot.EXITED})
    await broom.sweep(first)
    await broom.sweep(second)
    assert (_gone(first), _gone(second)) == ({here.id}, {there.id})


async def test_a_sweep_that_was_cut_off_is_made_by_the_next_session(tmp_path: Path) -> None:
    broom = Broom(tmp_path, [attempt(1)])
    cut = _session(NODE, {})

    def lost(_: str) -> Any:
        raise NodeError("node-1", "the connection was lost")

    cut.answers["fence"] = lost
    with pytest.raises(NodeError):
        await broom.sweep(cut)
    again = _session(NODE, {attempt(1): Spot.RUNNING})
    again.answers["end"] = lambda _: ()
    await broom.sweep(again)
    assert ("end", attempt(1).id) in again.said
    assert broom.cleared == [attempt(1).id]


async def test_a_sibling_waits_until_the_host_is_swept(tmp_path: Path) -> None:
    broom = Broom(tmp_path, [attempt(1)])
    first, sibling = _session(NODE, {attempt(1): Spot.RUNNING}), _session(NODE, {})
    ended: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
    first.answers["end"] = lambda _: ended
    sweeping = [asyncio.create_task(broom.sweep(each)) for each in (first, sibling)]
    done, _ = await asyncio.wait(sweeping, timeout=0.02)
    assert not done
    ended.set_result(())
    await asyncio.gather(*sweeping)
    assert sibling.said == []


async def test_a_full_disk_leaves_results_on_the_node_and_the_node_in_the_run(tmp_path: Path) -> None:
    broom = Broom(tmp_path, [attempt(1)])
    broom.full = True
    session = _session(NODE, {attempt(1): Spot.EXITED})
    await broom.sweep(session)
    assert _gone(session) == set() and broom.cleared == [] and len(broom.events) == 1
    broom.full = False
    await broom.sweep(session)
    assert _gone(session) == {attempt(1).id}


async def test_what_a_log_holds_already_is_not_believed(tmp_path: Path) -> None:
    """A disk may have lost it, and have said so to a run that could not write that down any more."""
    whole, shortened = attempt(1), attempt(2)
    broom = Broom(tmp_path, [whole, shortened])
    session = _session(NODE, {})
    reports = {whole.id: 6, shortened.id: 2}
    session.answers["fence"] = lambda id_: report(
        whole if id_ == whole.id else shortened, Spot.EXITED, status=0, size=reports[id_]
    )
    session.answers["read"] = lambda offset: None
    session.output = b"hello\n"
    (tmp_path / "1.1.log").write_bytes(bytes(6))
    # A job may cut off its own output; what was here before stays.
    (tmp_path / "2.1.log").write_bytes(b"more than two")
    await broom.sweep(session)
    assert (tmp_path / "1.1.log").read_bytes() == b"hello\n"
    assert (tmp_path / "2.1.log").read_bytes() == b"more than two"
    assert broom.cleared == [whole.id, shortened.id]


async def test_a_good_log_outlives_a_node_that_is_lost_meanwhile(tmp_path: Path) -> None:
    broom = Broom(tmp_path, [attempt(1)])
    session = _session(NODE, {})
    session.output = bytes(range(256)) * 8192
    size = len(session.output)
    session.answers["fence"] = lambda _: report(attempt(1), Spot.EXITED, status=0, size=size)
    log = tmp_path / "1.1.log"
    log.write_bytes(session.output)

    def lost(offset: int) -> None:
        if offset:
            raise NodeError("node-1", "lost")

    session.answers["read"] = lost
    with pytest.raises(NodeError):
        await broom.sweep(session)
    assert log.read_bytes() == session.output
    assert broom.cleared == []


async def test_what_another_machine_with_the_same_spool_has_is_left_alone(tmp_path: Path) -> None:
    broom = Broom(tmp_path, [attempt(1)])
    session = _session(NODE, {attempt(1): Spot.ELSEWHERE}, [attempt(1)])
    await broom.sweep(session)
    assert _gone(session) == set() and broom.cleared == []
