"""What becomes of orders and answers while sessions come and go."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from pegasus_py.core.events import NodeDown, Note
from pegasus_py.core.model import Attempt, Spot
from pegasus_py.core.moves import Ask, Attach, Closed, Exited, Kill, Killed, Opened, Over, Reported, Send
from pegasus_py.errors import NodeError, StorageError
from pegasus_py.node.channel import Sink
from pegasus_py.run import link as link_module
from pegasus_py.run import tap as tap_module
from pegasus_py.store import disk
from tests.run.fakes import Stage, attempt, report, until


@asynccontextmanager
async def _kept(stage: Stage) -> AsyncIterator[None]:
    keeping = asyncio.create_task(stage.link.keep())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        stage.logs.close_all()
    assert not stage.crashes


async def test_an_order_for_a_session_that_has_gone_is_not_given_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    async with _kept(stage):
        (await stage.session()).observer.introduce()
        stage.link.closed("lost")
        second = await stage.session(2)
        # The scheduler ordered this before it heard of the loss; it asks again once it has.
        stage.link.perform(Send(attempt()))
        assert second.said == []
        assert [type(f) for f in stage.facts] == [Opened, Closed, Opened]
        stage.link.introduce()
        stage.link.perform(Send(attempt()))
        assert second.said == [("start", attempt().id)]


async def test_an_attempt_whose_start_is_still_unanswered_is_not_attached_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    async with _kept(stage):
        session = await stage.session()
        stage.link.introduce()
        stage.link.perform(Send(attempt()))
        # It was killed, the fence said that it has ended, but its exit frame is late.
        stage.link.perform(Attach(attempt()))
        session.exit(143)
        assert stage.facts[-1] == Exited(attempt().id, 143)


async def test_an_attempt_whose_output_is_being_completed_is_not_attached_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    async with _kept(stage):
        session = await stage.session()
        stage.link.introduce()
        stage.link.perform(Send(attempt()))
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        session.answers["read"] = lambda offset: gate
        session.output = b"x" * 3_000_000
        session.exit(0, len(session.output), None)
        await until(lambda: ("read", 0) in session.said)
        stage.link.perform(Attach(attempt()))
        gate.set_result(None)
        await until(lambda: stage.facts[-1] == Exited(attempt().id, 0))
        assert ("attach", attempt().id) not in session.said
        assert stage.logs.path(attempt()).read_bytes() == session.output


async def test_what_a_node_refuses_from_the_start_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    stage.refusal = NodeError("node-1", "permission denied", transient=False)
    async with _kept(stage):
        await until(lambda: stage.facts)
        stage.refusal = None
        await asyncio.sleep(0.05)
        assert stage.facts == [Closed("node-1", final=True)]
        assert [type(e) for e in stage.events] == [NodeDown]
        assert not stage.sessions


async def test_a_node_that_was_up_is_tried_again_whatever_it_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a while the server finds no key, say, because the home is away in which it looks."""
    stage = Stage(tmp_path, monkeypatch)
    waits: list[float | None] = []
    async with _kept(stage):
        session = await stage.session()
        stage.link.introduce()
        stage.link.perform(Send(attempt()))
        stage.refusal = NodeError("node-1", "permission denied", transient=False)
        session.observer.closed("lost")
        await until(lambda: len(stage.facts) >= 4)
        stage.refusal = None
        await stage.session(2)
        waits += [e.retry_in for e in stage.events if isinstance(e, NodeDown)]
        assert [f for f in stage.facts if isinstance(f, Closed) and f.final] == []
        assert isinstance(stage.facts[-1], Opened)
        assert len(waits) >= 3 and None not in waits


async def test_what_is_refused_is_not_asked_for_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    monkeypatch.setattr(link_module, "REFUSED_WAIT", 1000.0)
    async with _kept(stage):
        session = await stage.session()
        stage.refusal = NodeError("node-1", "permission denied", transient=False)
        session.observer.closed("lost")
        await until(lambda: len([e for e in stage.events if isinstance(e, NodeDown)]) == 2)
        lost, refused = (e for e in stage.events if isinstance(e, NodeDown))
        assert (lost.was_up, lost.retry_in) == (True, 0.0)
        assert not refused.was_up and refused.retry_in is not None and 1000.0 <= refused.retry_in <= 2000.0


async def test_a_host_key_that_has_changed_is_not_tried_again_even_if_the_node_was_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    async with _kept(stage):
        session = await stage.session()
        stage.refusal = NodeError("node-1", "HOST KEY CHANGED", transient=False, hopeless=True)
        session.observer.closed("lost")
        await until(lambda: stage.facts[-1] == Closed("node-1", final=True))


class FakeFollow:
    """Gives `pieces`, then stays open or not."""

    def __init__(self, sink: Sink, pieces: Sequence[bytes], *, stays: bool) -> None:
        self.is_open = True
        self.on_close: Callable[[], None] = lambda: None
        asyncio.get_running_loop().call_soon(self._give, sink, pieces, stays)

    def _give(self, sink: Sink, pieces: Sequence[bytes], stays: bool) -> None:
        sink(*pieces)
        if not stays:
            # Not along with what came last.
            asyncio.get_running_loop().call_later(0.01, self.close)

    def close(self) -> None:
        self.is_open = False
        self.on_close()


@pytest.mark.parametrize(
    ("given", "stays", "stall"), [(0, False, 1e6), (1, False, 1e6), (1, True, 0.01), (2, True, 1e6)]
)
async def test_much_that_a_short_job_has_written_is_followed_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int, stays: bool, stall: float
) -> None:
    """`given` of two pieces come that way, if any; what is missing then is asked for after all.

    At once when the channel is closed, else after `stall` seconds without anything.
    """
    stage = Stage(tmp_path, monkeypatch)
    pieces = [b"a" * (tap_module.MUCH // 2), b"b" * (tap_module.MUCH // 2 + 1)]
    async with _kept(stage):
        session = await stage.session()
        stage.link.introduce()
        stage.link.perform(Send(attempt()))
        session.output = b"".join(pieces)
        if given:
            session.answers["follow"] = lambda sink: FakeFollow(sink, pieces[:given], stays=stays)
        session.answers["read"] = lambda offset: None
        monkeypatch.setattr(tap_module, "STALL", stall)
        session.exit(0, len(session.output), None)
        await until(lambda: stage.facts[-1] == Exited(attempt().id, 0))
        assert stage.logs.path(attempt()).read_bytes() == session.output
        asked = [offset for verb, offset in session.said if verb == "read"]
        assert asked[:1] == [[0], [len(pieces[0])], []][given]


async def test_a_shell_held_by_an_unkillable_job_is_given_up_for_the_next_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    async with _kept(stage):
        await stage.session()
        stage.link.introduce()
        stage.link.perform(Send(attempt(1)))
        stage.link.perform(Send(attempt(2)))
        second = await stage.session(2)
        assert Closed("node-1") in stage.facts
        stage.link.introduce()
        second.answers["ask"] = lambda _: report(attempt(2), Spot.ABSENT)
        stage.link.perform(Ask(attempt(2)))
        await until(lambda: second.said)
        stage.link.perform(Send(attempt(2)))
        assert second.said[-1] == ("start", attempt(2).id)


async def test_a_cancel_command_that_cannot_be_run_does_not_keep_the_signals_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    async with _kept(stage):
        session = await stage.session()
        stage.link.introduce()
        job = attempt(cancel="docker kill it")
        stage.link.perform(Send(job))

        def full(_: object) -> int:
            raise NodeError("node-1", "the cancel command cannot be written")

        session.answers["run"] = full
        session.answers["end"] = lambda _: ()
        stage.link.perform(Kill(job))
        await until(lambda: stage.facts[-1] == Killed(job.id, ()))
        assert any("cannot be written" in e.text for e in stage.events if isinstance(e, Note))


async def test_nothing_is_cleared_while_a_kill_has_the_channel_for_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "CLEAR_AFTER", 0.001)
    # Else the job that runs would keep it from being cleared, too.
    monkeypatch.setattr(link_module, "CLEAR_LATEST", 0.001)
    stage = Stage(tmp_path, monkeypatch)
    async with _kept(stage):
        session = await stage.session()
        stage.link.introduce()
        stage.link.perform(Send(attempt(2)))
        ended: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        session.answers["end"] = lambda _: ended
        stage.link.perform(Kill(attempt(2)))
        await until(lambda: ("end", attempt(2).id) in session.said)
        for job in range(10, 80):
            stage.link.clear(attempt(job), keep=False)
        await asyncio.sleep(0.02)
        assert "clear" not in [verb for verb, _ in session.said]
        ended.set_result(())
        await until(lambda: len(stage.cleared) == 70)


async def test_between_rounds_nothing_is_cleared_by_a_question_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the sub-node is idle for a moment, again and again; what has ended goes along with a start."""
    monkeypatch.setattr(link_module, "CLEAR_AFTER", 3600.0)
    monkeypatch.setattr(link_module, "CLEAR_LATEST", 7200.0)
    stage = Stage(tmp_path, monkeypatch)
    link = stage.link
    async with _kept(stage):
        session = await stage.session()
        link.introduce()
        link.clear(attempt(1), keep=False)
        timer = link._clear_timer
        link.clear(attempt(2), keep=False)
        assert timer is not None and link._clear_timer is timer
        # When its time has come, there has been an end since; once more in an hour after that.
        timer.cancel()
        link._clear_soon()
        again = link._clear_timer
        assert again is not None and timer.when() < again.when() == link._last_end + 3600
        await asyncio.sleep(0)
        assert "clear" not in [verb for verb, _ in session.said]
        again.cancel()
        monkeypatch.setattr(link_module, "CLEAR_AFTER", 0.0)
        link._clear_soon()
        await until(lambda: stage.cleared == [attempt(1).id, attempt(2).id])
        # For ever nothing waits, however often something ends.
        monkeypatch.setattr(link_module, "CLEAR_AFTER", 3600.0)
        monkeypatch.setattr(link_module, "CLEAR_LATEST", 0.0)
        link.clear(attempt(3), keep=False)
        timer = link._clear_timer
        assert timer is not None
        timer.cancel()
        link._clear_soon()
        await until(lambda: stage.cleared[2:] == [attempt(3).id])


async def test_the_next_start_clears_what_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, monkeypatch)
    ended = [attempt(job) for job in range(10, 10 + link_module.CLEAR_AT)]
    ids = [each.id for each in ended]
    async with _kept(stage):
        session = await stage.session()
        stage.link.introduce()
        for each in ended:
            stage.logs.open(each, fresh=True)
        stage.logs.write(ended[0], b"not flushed yet")
        for each in ended:
            stage.link.clear(each, keep=False)
        stage.link.perform(Send(attempt(1)))
        # Its log could be lost with this machine's power: the node's copy may not go yet.
        assert session.cleared_along == []
        session.exit(0)
        await until(lambda: stage.logs.are_safe(ended))
        stage.link.perform(Send(attempt(2)))
        assert session.cleared_along == ids
        stage.link.closed("lost")
        second = await stage.session(2)
        assert stage.cleared == []
        stage.link.introduce()
        stage.link.perform(Send(attempt(3)))
        assert second.cleared_along == ids
        second.exit(0)
        assert stage.cleared == second.cleared_along


async def test_leaving_waits_for_the_clearing_that_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    async with _kept(stage):
        session = await stage.session()
        cleared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        session.answers["clear"] = lambda _: cleared
        for job in range(link_module.CLEAR_AT):
            stage.link.clear(attempt(job), keep=False)
        await until(lambda: session.said)
        leaving = asyncio.create_task(stage.link.leave())
        await asyncio.sleep(0.01)
        assert ("bye", None) not in session.said
        cleared.set_result(None)
        await leaving
        assert session.said[-1] == ("bye", None)


async def test_what_may_still_run_keeps_its_marker_when_the_run_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    async with _kept(stage):
        session = await stage.session()
        stage.link.clear(attempt(1), keep=True)
        stage.link.clear(attempt(2), keep=True)
        await stage.link.leave({attempt(1).id})
        assert ("clear", [attempt(2).id]) in session.said
        assert stage.cleared == [attempt(2).id]


async def test_the_spool_stays_while_an_attempt_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    async with _kept(stage):
        session = await stage.session()
        stage.link.clear(attempt(2), keep=True)
        await stage.link.leave(for_good=False)
        assert session.said == [("clear", [attempt(2).id])]


async def test_a_missing_marker_proves_nothing_once_the_node_was_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. An attempt is sent. 2. The node loses power, and the marker with it. 3. It must not be started again."""
    stage = Stage(tmp_path, monkeypatch)
    async with _kept(stage):
        await stage.session()
        stage.link.introduce()
        stage.link.perform(Send(attempt()))
        stage.link.closed("lost")
        second = await stage.session(2)
        second.info = replace(second.info, boot="boot-2")
        second.answers["ask"] = lambda _: report(attempt(), Spot.ABSENT)
        stage.link.introduce()
        stage.link.perform(Ask(attempt()))
        await until(lambda: isinstance(stage.facts[-1], Reported))
        assert stage.facts[-1] == Reported(report(attempt(), Spot.REBOOTED))


@pytest.mark.parametrize(("up", "spot"), [(60.0, Spot.REBOOTED), (7200.0, Spot.ABSENT)])
async def test_of_an_earlier_run_s_attempt_the_node_s_age_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, up: float, spot: Spot
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    stage.began[attempt().id] = time.time() - 3600
    async with _kept(stage):
        session = await stage.session()
        session.info = replace(session.info, ahead=up - time.monotonic())
        session.answers["ask"] = lambda _: report(attempt(), Spot.ABSENT)
        stage.link.introduce()
        stage.link.perform(Ask(attempt()))
        await until(lambda: isinstance(stage.facts[-1], Reported))
        assert stage.facts[-1] == Reported(report(attempt(), spot))


async def test_the_end_is_told_before_the_output_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    async with _kept(stage):
        session = await stage.session()
        stage.link.introduce()
        stage.link.perform(Send(attempt()))
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        session.answers["read"] = lambda offset: gate
        session.output = b"x" * 100_000
        session.exit(0, len(session.output), None)
        assert stage.facts[-1] == Over(attempt().id)
        gate.set_result(None)
        await until(lambda: stage.facts[-1] == Exited(attempt().id, 0))
        stage.link.perform(Send(attempt(2)))
        session.exit(0)
        assert stage.facts[-2:] == [Exited(attempt().id, 0), Exited(attempt(2).id, 0)]


@pytest.mark.parametrize("keep", [False, True])
async def test_the_output_of_what_nobody_saw_end_is_read_before_it_is_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    async with _kept(stage):
        session = await stage.session()
        stage.link.introduce()
        stage.link.perform(Send(attempt()))
        session.output = b"one\n" + b"x" * 100_000
        size = len(session.output)
        session.answers["ask"] = lambda _: report(attempt(), Spot.VANISHED, size=size)
        session.answers["read"] = lambda offset: None
        stage.link.closed("lost")
        session = await stage.session(2)
        session.output, session.answers = stage.sessions[0].output, stage.sessions[0].answers
        stage.link.introduce()
        stage.link.clear(attempt(), keep=keep, whole=False)
        await stage.link.leave()
        assert stage.logs.path(attempt()).read_bytes() == session.output
        said = [verb for verb, _ in session.said]
        assert said.index("read") < said.index("clear")
        assert stage.cleared == [attempt().id]


@pytest.mark.parametrize("call", ["fsync", "close"])
async def test_output_that_the_disk_loses_after_it_has_taken_it_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Once: to ask the file system again would be told that all is well."""
    stage = Stage(tmp_path, monkeypatch)
    async with _kept(stage):
        session = await stage.session()
        stage.link.introduce()
        session.output = b"hello\n"
        session.answers["ask"] = lambda _: report(attempt(), Spot.EXITED, status=0, size=6)
        session.answers["read"] = lambda offset: None
        module = disk if call == "fsync" else os
        real = getattr(module, call)
        failed: list[str] = []

        def fail(descriptor: int) -> None:
            name = Path(f"/proc/self/fd/{descriptor}").readlink().name
            real(descriptor)
            if name == "1.1.log" and not failed:
                failed.append(name)
                raise OSError(122, "Disk quota exceeded")

        monkeypatch.setattr(module, call, fail)
        stage.link.perform(Send(attempt()))
        session.exit(0, 6, session.output)
        assert stage.facts[-1] == Exited(attempt().id, 0)
        stage.link.clear(attempt(), keep=False)
        await until(lambda: failed and stage.link.output_left)
        assert ("clear", [attempt().id]) not in session.said
        warning = f"{tmp_path}/1.1.log: Disk quota exceeded; the output of job 1 stays on its node"
        assert Note(warning, warning=True) in stage.events
        await stage.link.leave()
        assert stage.logs.path(attempt()).read_bytes() == b"hello\n"
        said = [verb for verb, _ in session.said]
        assert said.index("read") < said.index("clear")
        assert stage.cleared == [attempt().id]
        assert not stage.link.output_left


async def test_output_that_the_disk_loses_at_the_end_stays_on_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    monkeypatch.setattr(link_module, "CLEAR_AFTER", 60.0)
    async with _kept(stage):
        session = await stage.session()
        stage.link.introduce()

        def fail(descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(disk, "fsync", fail)
        stage.link.perform(Send(attempt()))
        session.exit(0, 6, b"hello\n")
        stage.link.clear(attempt(), keep=False)
        await stage.link.leave()
        assert "clear" not in [verb for verb, _ in session.said]
        assert stage.cleared == []
        assert stage.link.output_left


async def test_a_disk_that_cannot_flush_is_told_of_once_and_asked_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    flushed: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(descriptor)
        if Path(f"/proc/self/fd/{descriptor}").readlink() == tmp_path:
            raise OSError(5, "Input/output error")
        real(descriptor)

    jobs = 5 * link_module.CLEAR_AT
    async with _kept(stage):
        session = await stage.session()
        stage.link.introduce()
        with monkeypatch.context() as patch:
            patch.setattr(disk, "fsync", fsync)
            for number in range(1, jobs + 1):
                stage.link.perform(Send(attempt(number)))
                session.exit(0, 6, b"hello\n")
                stage.link.clear(attempt(number), keep=False)
                await asyncio.sleep(0)
            assert bool(stage.link.output_left)
            warning = f"{tmp_path}: Input/output error; node-1 keeps the output of its jobs for now"
            assert [e for e in stage.events if isinstance(e, Note)] == [Note(warning, warning=True)]
            assert len(flushed) <= 2 * (link_module.CLEAR_AT + 1)
            assert "clear" not in [verb for verb, _ in session.said]
        await stage.link.leave()
        left: bool = stage.link.output_left
        assert not left
        assert sorted(stage.cleared) == sorted(attempt(number).id for number in range(1, jobs + 1))


async def test_output_that_its_node_has_lost_too_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch)
    async with _kept(stage):
        session = await stage.session()
        stage.link.introduce()
        session.answers["ask"] = lambda _: report(attempt(), Spot.ABSENT)

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            stage.link.perform(Send(attempt()))
            session.exit(0, 6, b"hello\n")
        stage.link.clear(attempt(), keep=False)
        await stage.link.leave()
        text = "the output of job 1 is lost: node-1 does not have it any more"
        assert stage.events[-1] == Note(text, warning=True)


async def test_what_a_cut_off_flush_has_lost_is_not_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection goes while a slow disk flushes, so that nobody is there to be told that it has failed."""
    stage = Stage(tmp_path, monkeypatch)
    sync = stage.logs.sync
    cut_off: list[Attempt] = []

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    def cut_off_once(attempts: list[Attempt]) -> None:
        if not cut_off:
            cut_off.extend(attempts)
            with monkeypatch.context() as patch, pytest.raises(StorageError):
                patch.setattr(disk, "fsync", fail)
                sync(attempts)
            raise asyncio.CancelledError
        sync(attempts)

    monkeypatch.setattr(stage.logs, "sync", cut_off_once)
    async with _kept(stage):
        session = await stage.session()
        stage.link.introduce()
        stage.link.perform(Send(attempt()))
        session.exit(0, 6, b"hello\n")
        stage.link.clear(attempt(), keep=False)
        await until(lambda: cut_off)
        stage.link.closed("lost")
        session = await stage.session(2)
        stage.link.introduce()
        stage.link.perform(Send(attempt(2)))
        # Without output, so that there is nothing to flush.
        session.exit(0)
        stage.link.clear(attempt(2), keep=False)
        await until(lambda: any(isinstance(event, Note) for event in stage.events))
        assert stage.link.output_left
        session.answers["ask"] = lambda _: report(attempt(), Spot.EXITED, status=0, size=6)
        session.answers["read"] = lambda offset: None
        session.output = b"hello\n"
        await stage.link.leave()
        said = [verb for verb, _ in session.said]
        assert said.index("read") < said.index("clear")
        assert sorted(stage.cleared) == [attempt(1).id, attempt(2).id]
