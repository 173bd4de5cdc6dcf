"""At most once: markers, fences, epochs, and the script killed or cut off at any of its steps."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest

from pegasus_py.core.model import Report, Spot, SubNode
from pegasus_py.errors import NodeError
from pegasus_py.node.channel import Overtaken
from pegasus_py.node.local import LocalConnector
from pegasus_py.node.session import NodeSession
from tests.node.nodes import (
    QUEUE,
    Node,
    Place,
    Watcher,
    attempt,
    attempt_id,
    bootstrap,
    gone,
    surroundings,
    until,
)


def missing(path: Path) -> bool:
    return not path.exists()


async def spot(node: Node, job: int) -> Spot:
    (report,) = await node.session.ask([attempt_id(job)])
    return report.spot


def test_an_attempt_starts_once(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node:
            assert (await node.run(1, "echo first"))[4] == b"first\n"
            assert await node.run(1, "echo second") == ("exists", attempt_id(1))
            assert await node.run(1, "# long\n" * 5000) == ("exists", attempt_id(1))
            assert (place.spool / QUEUE / "1.1.sh").read_text() == "echo first"
            assert (await node.run(2, "echo on"))[4] == b"on\n"

    asyncio.run(main())


def test_two_runners_race_for_every_attempt(place: Place) -> None:
    """Both are sent the same start at the same time, 60 times: one runs it, the other says that it exists."""
    oracle = place.spool.parent / "oracle"

    async def main() -> None:
        async with place.node("n1") as one, place.node("n2") as two:
            for job in range(1, 61):
                for node in (one, two):
                    node.session.start(attempt(job, f"echo {job} >>{oracle}"))
                told = sorted([(await one.watcher.next())[0], (await two.watcher.next())[0]])
                assert told == ["exists", "exited"]

    asyncio.run(main())
    assert sorted(map(int, oracle.read_text().split())) == list(range(1, 61))


def test_a_fence_is_for_good(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node:
            assert (await node.session.fence(attempt_id(1))).spot is Spot.FENCED
            assert await node.run(1, "echo no") == ("exists", attempt_id(1))
            assert await spot(node, 1) is Spot.FENCED
            assert (await node.session.fence(attempt_id(1))).spot is Spot.FENCED
            await node.run(2, "echo yes; exit 3")
            machine = node.session.info.machine
            assert await node.session.fence(attempt_id(2)) == Report(
                attempt_id(2), Spot.EXITED, 3, 4, machine
            )
            node.session.attach(attempt_id(1))
            told, report = await node.watcher.next()
            assert (told, report.spot) == ("reported", Spot.FENCED)

    asyncio.run(main())


def test_a_start_that_comes_too_late(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node:
            node.session.start(attempt(1, "echo ran"), within=-1.0)
            told = await node.watcher.next()
            assert told == ("refused", attempt_id(1), "the request to start it came too late")
            assert node.marker(1) == []
            node.session.start(attempt(1, "echo ran"), within=30.0)
            assert await node.watcher.next() == ("exited", attempt_id(1), 0, 4, b"ran\n")

    asyncio.run(main())


def test_a_start_races_with_a_fence(place: Place) -> None:
    """Whatever the fence says is what is so."""
    oracle = place.spool.parent / "oracle"
    oracle.touch()
    fenced = set()

    async def main() -> None:
        async with place.node("n1") as one, place.node("n2") as two:
            for job in range(1, 61):
                one.session.start(attempt(job, f"echo {job} >>{oracle}"))
                report = await two.session.fence(attempt_id(job))
                if report.spot is Spot.FENCED:
                    fenced.add(job)
                else:
                    assert report.spot in (Spot.STARTING, Spot.RUNNING, Spot.EXITED)
                assert (await one.watcher.next())[0] == ("exists" if job in fenced else "exited")

    asyncio.run(main())
    assert sorted(map(int, oracle.read_text().split())) == sorted(set(range(1, 61)) - fenced)


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace to hold up a call")
def test_a_starter_that_is_held_up_finds_the_fence(place: Place, tmp_path: Path) -> None:
    """It is held up between making its marker and writing into it, for longer than others wait for that."""
    marker, ran = place.spool / QUEUE / "1.1.job", tmp_path / "ran"
    hold = "inject=openat:delay_exit=3000000:when=1"
    strace = ("strace", "-f", "-qq", "-o", "/dev/null", "-P", str(marker), "-e", "trace=openat", "-e", hold)
    subnode = SubNode("n1", "localhost", (("hostname", "localhost"),), str(place.spool))

    async def main() -> None:
        connector = LocalConnector(
            surroundings(place.shell), (*strace, "/bin/sh", "-c", bootstrap(place.shell))
        )
        connection = await connector.connect(subnode)
        watcher = Watcher()
        session = await NodeSession.open(connection, subnode, QUEUE, 1, watcher)
        session.start(attempt(1, f"touch {ran}"))
        await until(marker.exists, "the marker")
        async with place.node("n2") as other:
            assert (await other.session.fence(attempt_id(1))).spot is Spot.FENCED
            assert await watcher.next() == ("exists", attempt_id(1))
            assert await spot(other, 1) is Spot.FENCED
        session.close()
        await connection.close()

    asyncio.run(main())
    assert not ran.exists()


def test_an_empty_marker_becomes_a_fence(place: Place) -> None:
    """Left by a starter that was killed between making the file and writing its line."""

    async def main() -> None:
        async with place.node() as node:
            (place.spool / QUEUE / "1.1.job").touch()
            (place.spool / QUEUE / "2.1.job").write_text("start cut off")
            assert await spot(node, 1) is Spot.FENCED
            assert await node.run(1, "echo no") == ("exists", attempt_id(1))
            assert await spot(node, 2) is Spot.FENCED

    asyncio.run(main())


def test_an_older_run_is_overtaken(place: Place) -> None:
    async def main() -> None:
        async with place.node(epoch=4) as old:
            assert (await old.run(1, "true"))[0] == "exited"
            async with place.node(epoch=5) as new:
                # A sub-node that the newer run does not even know is kept from starting too.
                assert await old.run(2, "echo no\necho never") == ("overtaken", 5)
                assert await spot(new, 2) is Spot.ABSENT
                assert (await new.run(2, "true"))[0] == "exited"
                with pytest.raises(Overtaken) as caught:
                    async with place.node(epoch=4):
                        pass
                assert caught.value.epoch == 5
                assert await old.run(3, "# long\n" * 5000) == ("overtaken", 5)

    asyncio.run(main())


def test_a_newer_session_takes_the_word_from_the_older(place: Place) -> None:
    """A start that the network held back on the old connection must not happen after the new one was asked."""

    async def main() -> None:
        async with place.node() as old, place.node("n1.x") as other, place.node() as new:
            assert await old.run(1, "echo no") == ("overtaken", 1)
            assert (await new.run(1, "echo yes"))[4] == b"yes\n"
            assert (await other.run(2, "echo yes"))[4] == b"yes\n"

    asyncio.run(main())


def test_the_controller_goes_and_the_job_stays(place: Place) -> None:
    go = place.spool.parent / "go"

    async def main() -> None:
        async with place.node() as node:
            node.session.start(
                attempt(1, f"echo a; while [ ! -e {go} ]; do sleep 0.05; done; echo b; exit 9")
            )
            await node.job_pid(1)
            runner = node.runner()
        async with place.node() as node:
            assert await spot(node, 1) is Spot.RUNNING
            assert await node.run(1, "echo no") == ("exists", attempt_id(1))
            node.session.attach(attempt_id(1))
            go.touch()
            assert await node.watcher.next() == ("exited", attempt_id(1), 9, 4, b"a\nb\n")
            # The word is free again, and the old runner has left.
            assert (await node.run(2, "echo on"))[4] == b"on\n"
            await until(lambda: gone(runner), "the old runner to leave")
            node.session.attach(attempt_id(1))
            assert await node.watcher.next() == ("exited", attempt_id(1), 9, 4, b"a\nb\n")

    asyncio.run(main())


def test_an_attach_ends_with_its_channel(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node:
            node.session.start(attempt(1, "sleep 600"))
            await node.job_pid(1)
            runner = node.runner()
        for _ in range(3):
            async with place.node() as node:
                node.session.attach(attempt_id(1))
                poller = node.runner()
                assert await node.session.ask([attempt_id(1)])
            await until(partial(gone, poller), "the waiting runner to leave")
        assert not gone(runner)
        async with place.node() as node:
            await node.session.end(attempt_id(1), 5)

    asyncio.run(main())


def test_the_runner_is_killed_while_its_job_runs(place: Place) -> None:
    """The job goes on; that it has ended is seen, how can never be known."""
    go = place.spool.parent / "go"

    async def main() -> None:
        async with place.node() as node:
            node.session.start(attempt(1, f"while [ ! -e {go} ]; do sleep 0.05; done"))
            pid = await node.job_pid(1)
            node.kill_runner(1)
            assert (await node.watcher.next())[0] == "closed"
        assert not gone(pid)
        async with place.node() as node:
            assert await spot(node, 1) is Spot.RUNNING
            node.session.attach(attempt_id(1))
            go.touch()
            told, report = await node.watcher.next()
            assert (told, report.spot) == ("reported", Spot.VANISHED)

    asyncio.run(main())


def test_what_is_left_of_a_tree_is_still_running(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node:
            node.session.start(attempt(1, "setsid sleep 600 & wait"))
            pid = await node.job_pid(1)
            node.kill_runner(1)
            await node.watcher.next()
        os.kill(pid, signal.SIGKILL)
        async with place.node() as node:
            assert await spot(node, 1) is Spot.RUNNING
            assert await node.session.end(attempt_id(1), 5) == ()
            assert await spot(node, 1) is Spot.VANISHED

    asyncio.run(main())


def test_a_reboot_is_told(place: Place) -> None:
    boot = place.spool.parent / "boot"
    place.env = {"PEGASUS_BOOT_ID_FILE": str(boot)}

    async def main() -> None:
        boot.write_text("first\n")
        async with place.node() as node:
            await node.run(1, "exit 2")
            node.session.start(attempt(2, "sleep 600"))
            pid = await node.job_pid(2)
            node.kill_runner(2)
            os.killpg(pid, signal.SIGKILL)
        boot.write_text("second\n")
        async with place.node() as node:
            assert node.session.info.boot == "second"
            assert await spot(node, 1) is Spot.EXITED
            assert await spot(node, 2) is Spot.REBOOTED

    asyncio.run(main())


def test_a_marker_of_another_machine(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node:
            await node.run(1, "true")
            marker = place.spool / QUEUE / "1.1.job"
            start, *_, exited = marker.read_text().splitlines()
            words = start.split()
            words[2] = "other"
            (place.spool / QUEUE / "2.1.job").write_text(" ".join(words) + "\n")
            (place.spool / QUEUE / "3.1.job").write_text(" ".join(words) + f"\n{exited}\n")
            (place.spool / QUEUE / "4.1.job").write_text(start + "\nexit 1")
            second, third, fourth = await node.session.ask([attempt_id(job) for job in (2, 3, 4)])
            assert (second.spot, second.machine) == (Spot.ELSEWHERE, "other")
            assert (third.spot, third.status, third.machine) == (Spot.EXITED, 0, "other")
            # A last line without its end does not count; the runner that made it is still there.
            assert fourth.spot in (Spot.STARTING, Spot.RUNNING)
            with pytest.raises(NodeError, match="other"):
                await node.session.end(attempt_id(2), 1)

    asyncio.run(main())


def test_the_text_is_cut_off(place: Place) -> None:
    """The connection goes away in the middle of a command: nothing runs, and nothing is left."""

    async def main() -> None:
        for job, lines in ((1, "3 30"), (2, "0 50000")):
            marker = place.spool / QUEUE / f"{job}.1.job"
            async with place.node() as node:
                node.session._control._write(f"start {job}.1 {lines} -\necho no >&2\necho ".encode())
                await until(marker.exists, "the marker")
            await until(partial(missing, marker), "the marker to go")
        async with place.node() as node:
            assert await node.session.list() == []
            assert (await node.run(1, "echo yes"))[4] == b"yes\n"

    asyncio.run(main())


def test_a_full_disk_refuses_and_an_exit_gets_through(place: Place, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k,nr_inodes=30 none {small}") != 0:
        pytest.skip("cannot mount a tmpfs here")
    place.spool = small
    try:

        async def main() -> None:
            async with place.node() as node:
                told = await node.run(1, f"head -c 200000 /dev/zero >{small}/filler 2>/dev/null; exit 5")
                assert told[2] == 5
                for job, text in ((2, "echo no"), (3, "# long\n" * 5000), (4, "echo no\n" * 300)):
                    told = await node.run(job, text)
                    assert told[:2] == ("refused", attempt_id(job))
                    assert "space" in told[2]
                    assert await spot(node, job) is Spot.ABSENT
                (small / "filler").unlink()
                assert (await node.run(2, "echo yes"))[4] == b"yes\n"
                # No inode is left: not even the marker.
                for number in range(40):
                    try:
                        (small / f"file{number}").touch()
                    except OSError:
                        break
                told = await node.run(5, "echo no\necho never")
                assert told[:2] == ("refused", attempt_id(5))
                (small / "file0").unlink()
                # For the marker, not for the command.
                assert (await node.run(6, "echo no\necho never"))[0] == "refused"
                (small / "file1").unlink()
                (small / "file2").unlink()
                (small / "file3").unlink()
                assert (await node.run(6, "echo yes"))[4] == b"yes\n"
                # What is refused is not in the way of what was done.
                assert await spot(node, 1) is Spot.EXITED

        asyncio.run(main())
    finally:
        os.system(f"umount {small}")


def test_a_spool_that_cannot_be(place: Place, tmp_path: Path) -> None:
    async def refused(match: str, transient: bool) -> None:
        with pytest.raises(NodeError, match=match) as caught:
            async with place.node():
                pass
        assert caught.value.transient is transient

    async def main() -> None:
        place.spool.mkdir()
        (tmp_path / "target").mkdir()
        (place.spool / QUEUE).symlink_to(tmp_path / "target")
        await refused("symbolic link", False)
        (place.spool / QUEUE).unlink()
        if os.geteuid() == 0:
            (place.spool / QUEUE).mkdir()
            os.chown(place.spool / QUEUE, 12345, 12345)
            await refused("someone else", False)
            (place.spool / QUEUE).rmdir()
        place.spool.rmdir()
        place.spool.write_text("a file")
        await refused("cannot be made", True)
        place.spool.unlink()
        # One with loose permissions is put right.
        (place.spool / QUEUE).mkdir(parents=True, mode=0o755)
        async with place.node():
            assert (place.spool / QUEUE).stat().st_mode & 0o777 == 0o700
        shutil.rmtree(place.spool)

    asyncio.run(main())
