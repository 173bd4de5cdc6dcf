"""The controller's end: frames in blocks of any size, channels that are refused or fall silent, logins that chatter."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_py.core.model import SubNode
from pegasus_py.errors import NodeError
from pegasus_py.node import session as session_module
from pegasus_py.node.local import LocalConnection, LocalConnector, LocalStream
from pegasus_py.node.protocol import FrameReader, ProtocolError, script, text_request
from pegasus_py.node.session import NodeSession
from pegasus_py.node.shell import BOOTSTRAP, END_MARK, Receiver
from tests.node.nodes import QUEUE, Place, Watcher, attempt, attempt_id, gone, until

SUBNODE = SubNode("n1", "localhost", (("hostname", "localhost"),))

frames = st.lists(
    st.one_of(
        st.tuples(st.just("exit"), st.binary(max_size=300)),
        st.tuples(st.just("data"), st.binary(max_size=300)),
        st.tuples(
            st.sampled_from(["exists 1.1", "report 1.1 absent - 0 m", "refused 1.1 no space"]), st.just(b"")
        ),
    ),
    max_size=20,
)


@given(
    frames,
    st.lists(st.integers(1, 50), max_size=200),
    st.binary(max_size=100).filter(lambda b: b"pegasus-" not in b),
)
def test_frames_come_out_as_they_went_in(
    sent: list[tuple[str, bytes]], cuts: list[int], chatter: bytes
) -> None:
    stream = chatter + b"\npegasus-hello b m yes yes 7 no\n"
    for verb, body in sent:
        match verb:
            case "exit":
                stream += b"exit 1.1 0 %d %d\n" % (len(body), len(body)) + body
            case "data":
                stream += b"data 1.1 %d\n" % len(body) + body
            case _:
                stream += verb.encode() + b"\n"
    got: list[tuple[str, bytes]] = []
    reader = FrameReader(lambda words, body: got.append((" ".join(words), body)))
    at = 0
    for cut in cuts:
        if stream[at : at + cut]:
            reader.feed(stream[at : at + cut])
        at += cut
    if stream[at:]:
        reader.feed(stream[at:])
    assert got[0] == ("pegasus-hello b m yes yes 7 no", b"")
    assert [body for _, body in got[1:]] == [body for _, body in sent]
    assert [words.split()[0] for words, _ in got[1:]] == [verb.split()[0] for verb, _ in sent]


@pytest.mark.parametrize("junk", [b"exit 1.1 0\n", b"data 1.1 x\n", b"x" * 70_000])
def test_what_is_no_frame_is_an_error(junk: bytes) -> None:
    reader = FrameReader(lambda words, body: None)
    reader.feed(b"pegasus-hello b m yes yes 7 no\n")
    with pytest.raises(ProtocolError):
        reader.feed(junk)


def test_chatter_without_end_is_an_error() -> None:
    reader = FrameReader(lambda words, body: None)
    with pytest.raises(ProtocolError):
        for _ in range(100):
            reader.feed(b"y" * 65536)


def test_a_text_is_counted_as_the_script_reads_it() -> None:
    assert text_request("start", "1.1", "a\nb", ["-", "9.1"]) == b"start 1.1 2 3 - 9.1\na\nb\n"
    assert text_request("start", "1.1", "") == b"start 1.1 1 0\n\n"
    long = "x\n" * 4000
    assert text_request("start", "1.1", long) == b"start 1.1 0 8000\n" + long.encode()


def test_the_script_that_is_sent() -> None:
    assert END_MARK not in script()
    assert script().isascii()
    assert not any(line.startswith(("#", " ")) for line in script().splitlines())


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_the_script_is_posix_sh() -> None:
    source = session_module.__file__.replace("session.py", "runner.sh")
    assert subprocess.run(["shellcheck", "-s", "sh", source], capture_output=True, text=True).stdout == ""


@pytest.mark.parametrize("login", ["sh", "bash", "zsh", "tcsh", "fish"])
def test_any_login_shell_will_do(login: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    program = shutil.which(login)
    if program is None:
        pytest.skip(f"needs {login}")
    home = tmp_path_factory.mktemp("home")

    async def main() -> None:
        connector = LocalConnector({**os.environ, "HOME": str(home)}, (program, "-c", BOOTSTRAP))
        connection = await connector.connect(SUBNODE)
        watcher = Watcher()
        session = await NodeSession.open(connection, SUBNODE, QUEUE, 1, watcher)
        session.start(attempt(1, "echo 'it''s' \"$HOME\"!"))
        assert (await watcher.next())[4] == f"its {home}!\n".encode()
        await session.clear([attempt_id(1)])
        await session.bye()
        await connection.close()
        assert not (home / ".local/state/pegasus").exists()

    asyncio.run(main())


def test_a_login_that_chatters(tmp_path_factory: pytest.TempPathFactory) -> None:
    spool = tmp_path_factory.mktemp("spool")
    subnode = SubNode("n1", "localhost", (), str(spool))

    async def main() -> None:
        chatter = ("/bin/sh", "-c", "echo Welcome; printf 'no newline'; " + BOOTSTRAP)
        connection = await LocalConnector(None, chatter).connect(subnode)
        session = await NodeSession.open(connection, subnode, QUEUE, 1, Watcher())
        session.close()
        await connection.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("command", "match"),
    [
        ("exit 1", "before it had answered"),
        ("echo This account is not available; exit 1", "before it had answered"),
        ("exec sleep 600", "did not answer within"),
    ],
)
def test_a_login_that_gives_no_shell(command: str, match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "OPEN_WITHIN", 0.3)
    pids = []

    async def main() -> None:
        connection = await LocalConnector(None, ("/bin/sh", "-c", command)).connect(SUBNODE)
        with pytest.raises(NodeError, match=match):
            await NodeSession.open(connection, SUBNODE, QUEUE, 1, Watcher())
        await connection.close()

    spawn = LocalStream.__init__

    def noting(self: LocalStream, *args: object) -> None:
        spawn(self, *args)  # type: ignore[arg-type]
        pids.append(self.pid)

    monkeypatch.setattr(LocalStream, "__init__", noting)
    asyncio.run(main())
    for pid in pids:
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)


class Refusing(LocalConnection):
    """Gives the first channel, then refuses a number of times, as a server does whose sessions are all taken."""

    refusals = 0

    async def open_shell(self, receiver: Receiver) -> LocalStream:
        if self._streams and self.refusals:
            self.refusals -= 1
            raise NodeError(self.host, "channel refused", transient=True)
        return await super().open_shell(receiver)


@pytest.mark.parametrize(("refusals", "works"), [(3, True), (100, False)])
def test_a_refused_channel_is_asked_for_again(place: Place, refusals: int, works: bool) -> None:
    async def main() -> None:
        async with place.node() as node:
            node.connection.__class__ = Refusing
            node.connection.refusals = refusals  # type: ignore[attr-defined]
            node.session.start(attempt(1, "sleep 600"))
            await node.job_pid(1)
            if not works:
                with pytest.raises(NodeError, match="channel refused"):
                    await node.session.end(attempt_id(1), 1)
                node.connection.refusals = 0  # type: ignore[attr-defined]
            assert await node.session.end(attempt_id(1), 5) == ()
            assert (await node.watcher.next())[2] == 143

    asyncio.run(main())


def test_never_more_than_three_channels(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node:
            node.session.start(attempt(1, "echo out; sleep 600"))
            await node.job_pid(1)
            follow = await node.session.follow(attempt_id(1), 0, lambda *data: None)
            await asyncio.gather(*(node.session.ask([attempt_id(1)]) for _ in range(20)))
            assert len(node.connection._streams) == 3
            follow.close()
            assert len(node.connection._streams) == 2
            await node.session.end(attempt_id(1), 5)

    asyncio.run(main())


def test_questions_after_a_kill_of_their_runner(place: Place) -> None:
    """The other channel's script is killed: its question fails, the next is asked of a new one, the job is told."""

    async def main() -> None:
        async with place.node() as node:
            node.session.start(attempt(1, "sleep 600"))
            await node.job_pid(1)
            await node.session.ask([attempt_id(1)])
            aux = node.session._aux
            assert aux is not None
            assert isinstance(aux._stream, LocalStream)
            ending = asyncio.ensure_future(node.session.run_cancel(attempt_id(1), "sleep 1", 60))
            await until(lambda: (place.spool / QUEUE / "1.1.cancel").exists(), "the cancel command")
            os.kill(aux._stream.pid, signal.SIGKILL)
            with pytest.raises(NodeError):
                await ending
            assert await node.session.end(attempt_id(1), 5) == ()
            assert (await node.watcher.next())[2] == 143

    asyncio.run(main())


def test_silence_has_a_bound(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with place.node() as node:
            await node.run(1, "true")
            monkeypatch.setattr(session_module, "ANSWER_WITHIN", 0.2)
            runner = node.runner()
            os.kill(runner, signal.SIGSTOP)
            with pytest.raises(NodeError, match="no answer within"):
                await node.session.ask([attempt_id(1)])
            assert (await node.watcher.next())[0] == "closed"
            assert node.watcher.events.empty()
            os.kill(runner, signal.SIGCONT)
            with pytest.raises(NodeError):
                await node.session.ask([attempt_id(1)])

    asyncio.run(main())


def test_the_connection_goes(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node:
            node.session.start(attempt(1, "sleep 600"))
            await node.job_pid(1)
            question = asyncio.ensure_future(node.session.end(attempt_id(1), 600))
            await asyncio.sleep(0)
            await node.connection.close()
            with pytest.raises(NodeError):
                await question
            assert await node.watcher.next() == ("closed", "closed")
            assert node.watcher.events.empty()
        async with place.node() as node:
            await node.session.end(attempt_id(1), 5)

    asyncio.run(main())


def test_a_session_takes_one_job_at_a_time_and_no_strangers(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node:
            node.session.start(attempt(1, "true"))
            with pytest.raises(RuntimeError):
                node.session.start(attempt(2, "true"))
            await node.watcher.next()
            with pytest.raises(ValueError, match="not of queue"):
                node.session.start(attempt(1, "true", queue="f" * 16))
            with pytest.raises(ValueError, match="not of queue"):
                await node.session.clear(["1.1.ffffffffffffffff"])

    asyncio.run(main())
