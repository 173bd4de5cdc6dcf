"""A job is ended with all that it has started, however it was started; strangers are left alone."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from tests.node.nodes import QUEUE, Place, attempt, attempt_id, gone, until

ZOO = {
    "plain": "sleep 600",
    "child in the background": "sleep 600 & sleep 601",
    "double fork": "( ( sleep 600 & ) & ); sleep 601",
    "setsid": "setsid sleep 600 & sleep 601",
    "setsid twice": "setsid sh -c 'setsid sleep 600 & sleep 602' & sleep 601",
    "nohup": "nohup sleep 600 & nohup sleep 601",
    "ignores TERM": "trap '' TERM HUP INT; sleep 600 & while :; do sleep 1; done",
    "ignores TERM in a session of its own": "setsid sh -c \"trap '' TERM; while :; do sleep 1; done\" & sleep 601",
    "stopped": "sh -c 'kill -STOP $$; sleep 600' & sleep 601",
    "stopped itself": "kill -STOP $$; sleep 600",
    "stopped in a session of its own": "setsid sh -c 'kill -STOP $$; sleep 600' & sleep 601",
    "no environment": "env -i sleep 600 & env -i /bin/sh -c 'sleep 601 & wait'",
    "no environment and ignores TERM": "trap '' TERM; env -i sh -c 'while :; do sleep 1; done' & sleep 601",
    "job control of its own": "bash -c 'set -m; sleep 600 & sleep 602 & wait' & sleep 601",
    "holds its output": "exec 3>&1; sleep 600 >&3 & sleep 601",
    "ends while its child ignores TERM": "sh -c \"trap '' TERM; sleep 600; sleep 600\" & wait",
    "respawns": "while :; do sleep 600; done",
    "a child for each TERM": "trap 'setsid sleep 600 & exit 1' TERM; sleep 600 & wait",
    "odd name": 'cp $(command -v sleep) "$PWD_OF_TEST/a) S 1 1"; "$PWD_OF_TEST/a) S 1 1" 600 & sleep 601',
    "zombies": "sh -c 'sleep 0 & exec sleep 600' & sleep 601",
}


def carriers(mark: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def in_group(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group, session = path.read_text().rpartition(") ")[2].split()[:4]
        except OSError:
            continue
        if str(pid) in (group, session) and state not in "ZX":
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("kind", ZOO)
def test_nothing_of_a_tree_survives(place: Place, kind: str) -> None:
    place.env = {"PWD_OF_TEST": str(place.spool.parent)}
    ready = place.spool.parent / "ready"

    async def main() -> None:
        async with place.node() as node:
            node.session.start(attempt(1, f"touch {ready}; {ZOO[kind]}"))
            pid = await node.job_pid(1)
            await until(ready.exists, "the tree")
            expected = 1 if ZOO[kind].count("sleep") == 1 else 2
            await until(
                lambda: len({*in_group(pid), *carriers(attempt_id(1))}) >= expected, "the tree to grow"
            )
            assert await node.session.end(attempt_id(1), 0.5) == ()
            told = await asyncio.wait_for(node.watcher.next(), 10)
            assert told[0] == "exited"
            assert carriers(f"PEGASUS_ATTEMPT={attempt_id(1)}") == []
            assert in_group(pid) == []
            assert (await node.run(2, "echo on"))[4] == b"on\n"

    asyncio.run(main())


def test_a_chain_of_forks_is_overtaken(place: Place) -> None:
    """Each link starts the next in a session of its own and is gone at once."""
    link = place.spool.parent / "link"
    link.write_text(f"sleep 0.01\nsetsid sh {link} &\n")

    async def main() -> None:
        async with place.node() as node:
            node.session.start(attempt(1, f"setsid sh {link} & sleep 600"))
            await node.job_pid(1)
            assert await node.session.end(attempt_id(1), 0.1) == ()
            assert carriers(attempt_id(1)) == []
            assert (await node.watcher.next())[2] == 143

    asyncio.run(main())


def test_term_comes_once_and_the_grace_is_used(place: Place) -> None:
    """A second TERM would mean "at once" to many programs."""
    script = "trap 'echo term; n=$((n + 1))' TERM; while [ ${n:-0} -lt 1 ]; do sleep 0.02; done; sleep 0.5; exit $n"

    async def main() -> None:
        async with place.node() as node:
            node.session.start(attempt(1, f"echo ready; {script}"))
            await node.job_pid(1)
            await until(lambda: (place.spool / QUEUE / "1.1.out").read_bytes(), "the trap")
            assert await node.session.end(attempt_id(1), 20) == ()
            _, _, status, _, inline = await node.watcher.next()
            assert (status, inline.count(b"term")) == (1, 1)

    asyncio.run(main())


@pytest.mark.parametrize(
    "helper",
    ["sleep 0.5", "sh -c 'sleep 0.2; sleep 0.3'", "setsid sh -c '(sleep 0.5); true'"],
)
def test_what_a_process_starts_to_finish_has_the_grace_period_too(place: Place, helper: str) -> None:
    """To save a checkpoint, say."""
    script = (
        f"trap '{helper.replace(chr(39), chr(34))} && echo saved; exit 7' TERM; echo ready; sleep 600 & wait"
    )

    async def main() -> None:
        async with place.node() as node:
            node.session.start(attempt(1, script))
            await node.job_pid(1)
            await until(lambda: (place.spool / QUEUE / "1.1.out").read_bytes(), "the trap")
            assert await node.session.end(attempt_id(1), 20) == ()
            _, _, status, _, inline = await node.watcher.next()
            assert (status, inline) == (7, b"ready\nsaved\n")

    asyncio.run(main())


def test_what_is_started_to_finish_ends_with_the_grace_period(place: Place) -> None:
    script = "trap 'setsid sleep 600; sleep 601' TERM; echo ready; sleep 602 & wait"

    async def main() -> None:
        async with place.node() as node:
            node.session.start(attempt(1, script))
            await node.job_pid(1)
            await until(lambda: (place.spool / QUEUE / "1.1.out").read_bytes(), "the trap")
            assert await node.session.end(attempt_id(1), 0.5) == ()
            assert carriers(attempt_id(1)) == []
            assert (await node.watcher.next())[2] == 137

    asyncio.run(main())


def test_strangers_and_other_attempts_are_left_alone(place: Place) -> None:
    async def main() -> None:
        async with place.node("n1") as one, place.node("n2") as two:
            one.session.start(attempt(1, "sleep 600"))
            two.session.start(attempt(11, "sleep 600"))
            await one.job_pid(1)
            other = await two.job_pid(11)
            assert await one.session.end(attempt_id(1), 5) == ()
            assert (await one.watcher.next())[2] == 143
            assert not gone(other)
            assert await one.session.end(attempt_id(77), 5) == ()
            assert await one.session.end(attempt_id(11), 5) == ()
            assert (await two.watcher.next())[2] == 143

    asyncio.run(main())


def test_a_number_that_was_given_to_a_stranger(place: Place) -> None:
    """The marker names a process that lives, but it is not the one that was started."""
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:

        async def main() -> None:
            async with place.node() as node:
                await node.run(1, "true")
                words = node.marker(1)[0]
                words[3:7] = [str(stranger.pid), "1", str(stranger.pid), "1"]
                (place.spool / QUEUE / "2.1.job").write_text(" ".join(words) + "\n")
                (report,) = await node.session.ask([attempt_id(2)])
                assert report.spot == "vanished"
                assert await node.session.end(attempt_id(2), 5) == ()
                assert stranger.poll() is None

        asyncio.run(main())
    finally:
        stranger.kill()
        stranger.wait()


def test_a_cancel_command(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node:
            node.session.start(attempt(1, "echo job; sleep 600"))
            await node.job_pid(1)
            assert (
                await node.session.run_cancel(attempt_id(1), "echo cancelling $PEGASUS_JOB_ID; exit 3", 20)
                == 3
            )
            assert await node.session.run_cancel(attempt_id(1), "# long\n" * 2000 + "exit 4", 20) == 4
            assert await node.session.run_cancel(attempt_id(1), "sleep 600 & sleep 601", 0.3) == 124
            assert await node.session.end(attempt_id(1), 5) == ()
            told = await node.watcher.next()
            assert told[2:] == (143, 17, b"job\ncancelling 1\n")

    asyncio.run(main())
