"""What a job is given, what is told of its end, and that its text runs exactly as written."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
from pathlib import Path

import pytest

from pegasus_py.errors import NodeError
from pegasus_py.node import session as session_module
from tests.node.nodes import QUEUE, Place, attempt, attempt_id, gone, until

ALL_BYTES = bytes(range(256))


def test_exit_status_and_output(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node:
            assert await node.run(1, "echo out; echo err >&2; exit 3") == (
                "exited",
                attempt_id(1),
                3,
                8,
                b"out\nerr\n",
            )
            assert await node.run(2, "true") == ("exited", attempt_id(2), 0, 0, b"")
            assert node.marker(2)[-1] == ["exit", "0", "."]

    asyncio.run(main())


@pytest.mark.parametrize("status", [1, 2, 124, 125, 126, 127, 128, 129, 137, 255])
def test_every_exit_status_is_the_jobs_own(place: Place, status: int) -> None:
    async def main() -> None:
        async with place.node() as node:
            assert (await node.run(1, f"exit {status}"))[2] == status
            assert (await node.run(2, "echo on"))[4] == b"on\n"

    asyncio.run(main())


def test_death_by_signal(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node:
            assert (await node.run(1, "kill -9 $$"))[2] == 137
            assert (await node.run(2, "kill -TERM $$"))[2] == 143
            # Its own group only: the runner lives, and so does the next job.
            assert (await node.run(3, "kill 0; sleep 60"))[2] == 143
            assert (await node.run(4, "trap 'kill 0' EXIT; exit 7"))[2] in (7, 143)
            assert (await node.run(5, "exit 0"))[2] == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "echo 'a  b'  \"$HOME\" \\\n  `echo x` !! # %s \\n",
        "printf %s end-without-newline",
        "echo a\\",
        "cat <<'X'\n\t tabs and  spaces \\ kept\n\nX\n",
        "echo \r\n",
        "echo grüße; echo '\u2028'",
        "start 9 1 0\nclear 1.1\n",
    ],
)
def test_the_text_arrives_as_written(place: Place, text: str) -> None:
    async def main() -> None:
        async with place.node() as node:
            await node.run(1, text)
            assert (place.spool / QUEUE / "1.1.sh").read_bytes() == text.encode()
            assert (await node.run(2, "echo on"))[4] == b"on\n"

    asyncio.run(main())


def test_a_script_of_a_megabyte(place: Place) -> None:
    text = "exit_with=5\n" + "# " + "x" * (1 << 20) + "\nexit $exit_with"

    async def main() -> None:
        async with place.node() as node:
            assert (await node.run(1, text))[2] == 5
            assert (place.spool / QUEUE / "1.1.sh").read_text() == text
            assert (await node.run(2, "echo on"))[4] == b"on\n"

    asyncio.run(main())


@pytest.mark.parametrize("size", [1, 255, 8191, 8192, 8193, 100_000])
@pytest.mark.parametrize("kind", ["text", "binary", "no-nul"])
def test_output_is_bytes(place: Place, size: int, kind: str) -> None:
    block = {"text": b"line of text\n", "binary": ALL_BYTES, "no-nul": ALL_BYTES[1:]}[kind]
    data = (block * (size // len(block) + 1))[:size]
    source = place.spool.parent / "data"
    source.write_bytes(data)

    async def main() -> None:
        async with place.node() as node:
            verb, _, status, told, inline = await node.run(1, f"cat {source}")
            assert (verb, status, told) == ("exited", 0, size)
            assert inline == (data if size <= 8192 else None)
            assert await node.session.read(attempt_id(1), 0, size + 10) == data
            assert await node.session.read(attempt_id(1), size - 1, 1) == data[-1:]
            assert await node.session.read(attempt_id(1), size + 5, 10) == b""

    asyncio.run(main())


def test_surroundings_of_a_job(place: Place) -> None:
    place.env = {"LC_ALL": "C.UTF-8", "BASH_ENV": "/nonexistent", "KEPT": "yes"}
    script = (
        "umask; echo $LC_ALL $KEPT $BASH_ENV; pwd; readlink /proc/self/fd/0;"
        "echo $PEGASUS_JOB_ID $PEGASUS_ATTEMPT $PEGASUS_HOSTNAME $PEGASUS_SUBNODE ${PEGASUS_RUNNER-unset};"
        "ls /proc/self/fd | tr '\\n' ' '"
    )

    async def main() -> None:
        async with place.node("n1/gpu0") as node:
            lines = (await node.run(1, script))[4].decode().splitlines()
            assert lines[0] == f"{oct(current_umask())[2:]:0>4}"
            assert lines[1:4] == ["C.UTF-8 yes /nonexistent", str(Path.cwd()), "/dev/null"]
            assert lines[4] == f"1 {attempt_id(1)} localhost n1/gpu0 unset"
            # 0, 1, 2 and the directory that ls itself reads.
            assert lines[5].split() == ["0", "1", "2", "3"]

    asyncio.run(main())


def test_what_the_login_exports_reaches_the_job(place: Place) -> None:
    """Under whatever name, the script's own included."""
    source = (Path(session_module.__file__).parent / "runner.sh").read_text()
    names = re.findall(r'login_OURS="([^"]+)"', source)[0].split()
    assert names == sorted(names) and used_by(source) <= set(names)
    place.env = {name: f"a {name} of  the user's" for name in [*names, "pegasus"]}

    async def main() -> None:
        async with place.node() as node:
            for job in (1, 2):
                _, _, status, size, _ = await node.run(job, "env")
                told = (await node.session.read(attempt_id(job), 0, size)).decode(errors="replace")
                found = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
                assert status == 0
                assert {name: found.get(name) for name in place.env} == place.env
                assert not any(name.startswith("login_") for name in found)
            await node.session.run_cancel(attempt_id(2), "echo $dir", 10)
            assert await node.session.read(attempt_id(2), size, 100) == b"a dir of the user's\n"

    asyncio.run(main())


def used_by(source: str) -> set[str]:
    """The names of all variables that a shell script sets."""
    code = "\n".join(line for line in source.splitlines() if not line.strip().startswith("#"))
    found = set(re.findall(r"(?:^|[\s;{(])([a-z_]+)=", code, re.MULTILINE))
    found |= set(re.findall(r"\bfor ([a-z_]+)\b", code))
    for words in re.findall(r"\bread ((?:-\w+ |'' |\$\(\(.*?\)\) )*)([a-z_ ]+)", code):
        found |= set(words[1].split())
    return {name for name in found if name != "_" and not name.startswith(("login_", "pegasus_"))}


def current_umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


def test_a_job_gets_its_signals_as_a_login_does(place: Place) -> None:
    """Even under `nohup`, in the background."""

    async def main() -> None:
        async with place.node() as node:
            _, _, _, _, inline = await node.run(1, "grep SigIgn /proc/self/status")
            ignored = int(inline.split()[1], 16)
            assert ignored & sum(1 << (number - 1) for number in (1, 2, 3, 13, 15)) == 0

    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGQUIT)}
    try:
        asyncio.run(main())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_spool_is_private(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node:
            await node.run(1, "echo x")
            directory = place.spool / QUEUE
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}

    asyncio.run(main())


def test_a_child_left_behind_does_not_keep_the_job(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node:
            _, _, status, _, inline = await node.run(1, "sleep 600 & echo $!; exit 4")
            assert status == 4
            child = int(inline)
            assert not gone(child)
            assert await node.session.end(attempt_id(1), 5.0) == ()
            assert gone(child)

    asyncio.run(main())


def test_a_stopped_job_has_not_ended(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node:
            node.session.start(attempt(1, "kill -STOP $$; exit 6"))
            pid = await node.job_pid(1)
            await until(lambda: open_state(pid) == "T", "the job to stop")
            assert [report.spot for report in await node.session.ask([attempt_id(1)])] == ["running"]
            os.kill(pid, 18)
            assert (await node.watcher.next())[2] == 6

    asyncio.run(main())


def open_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_follow_gives_every_byte_once(place: Place) -> None:
    size = 100 << 20
    go = place.spool.parent / "go"
    got = bytearray()

    async def main() -> None:
        async with place.node() as node:
            node.session.start(
                attempt(1, f"printf head; while [ ! -e {go} ]; do sleep 0.05; done; head -c {size} /dev/zero")
            )
            follow = await node.session.follow(attempt_id(1), 2, lambda *data: got.extend(b"".join(data)))
            await until(lambda: got == b"ad", "the first bytes")
            follow.pause()
            go.touch()
            assert (await node.watcher.next())[2:] == (0, size + 4, None)
            follow.resume()
            await until(lambda: len(got) == size + 2, "all bytes")
            assert got.count(0) == size
            follow.close()
            # Its place is free again.
            again = await node.session.follow(attempt_id(1), size, lambda *data: None)
            again.close()

    asyncio.run(main())


def test_clearing_rides_along_with_a_start(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node:
            await node.run(1, "echo 1")
            await node.run(2, "echo 2")
            assert await node.session.list() == [attempt_id(1), attempt_id(2)]
            node.session.start(attempt(3, "echo 3"), [attempt_id(1)])
            await node.watcher.next()
            assert await node.session.list() == [attempt_id(2), attempt_id(3)]
            await node.session.clear([attempt_id(2), attempt_id(3)])
            assert await node.session.list() == []

    asyncio.run(main())


def test_bye_leaves_it_to_a_newer_run(place: Place) -> None:
    """Which has put its number there, and is about to put its word."""

    async def main() -> None:
        async with place.node() as node:
            await node.run(1, "true")
            await node.session.clear([attempt_id(1)])
            (place.spool / QUEUE / "epoch.2").touch()
            await node.session.bye()
        assert (place.spool / QUEUE / "epoch.2").exists()

    asyncio.run(main())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_spool_that_is_not_ours_although_we_made_it(place: Place, tmp_path: Path) -> None:
    """As for root on a server that takes root for nobody: the first session must not begin what later ones cannot."""
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    given_away = bin_directory / "mkdir"
    given_away.write_text('#!/bin/sh\n/bin/mkdir "$@" || exit\nfor last; do :; done\nchown 65534 "$last"\n')
    given_away.chmod(0o755)
    place.env = {**place.env, "PATH": f"{bin_directory}:{os.environ['PATH']}"}

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(NodeError, match="belongs to someone else"):
                async with place.node():
                    pass

    asyncio.run(main())


def test_bye_leaves_nothing(place: Place) -> None:
    async def main() -> None:
        async with place.node() as node, place.node("n2") as other:
            await node.run(1, "echo 1")
            await node.session.bye()
            await other.session.clear(await other.session.list())
            await other.session.bye()
        assert list(place.spool.iterdir()) == []

    asyncio.run(main())
