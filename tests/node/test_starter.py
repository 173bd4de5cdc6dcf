"""starter.py: that it is used, that it can be missing or die, and the moments in which its job has no name yet."""

from __future__ import annotations

import ast
import asyncio
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from pegasus_py.core.model import Spot
from pegasus_py.node import starter as starter_module
from pegasus_py.node.channel import Question
from pegasus_py.node.protocol import serve_request
from pegasus_py.node.starter import Starter, started
from tests.node.nodes import (
    PYTHON,
    QUEUE,
    SHELLS,
    WITH_STARTER,
    Place,
    attempt,
    attempt_id,
    busybox_tools,
    carries,
    gone,
    until,
)

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason=f"needs {PYTHON}")


@pytest.fixture
def served(tmp_path: Path) -> Place:
    return Place(WITH_STARTER, tmp_path / "spool")


def a_process(**environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"], env={**os.environ, **environment}, process_group=0)


def of_process(pid: int, what: str) -> bytes:
    return Path(f"/proc/{pid}/{what}").read_bytes()


def file(place: Place, name: str) -> Path:
    return place.spool / QUEUE / name


def test_jobs_follow_one_another_in_one_starter(served: Place) -> None:
    async def main() -> None:
        async with served.node() as node:
            for job in (1, 2):
                assert (await node.run(job, f"echo {job}"))[4] == b"%d\n" % job
            (first,) = node.starters(1)
            assert node.starters(2) == [first]
            # What it does not know is for the script, which stays; the next job gets another starter.
            assert [report.spot for report in await node.session.ask([attempt_id(1)])] == ["exited"]
            await node.run(3, "echo 3")
            (second,) = node.starters(3)
            assert second != first
            assert gone(first)
            # What it does know leaves it where it is.
            assert await node.session.read(attempt_id(3), 0, 10) == b"3\n"
            await node.session.clear([attempt_id(2)])
            await node.run(4, "true")
            assert node.starters(4) == [second]

    asyncio.run(main())


def test_it_takes_leave_itself(served: Place) -> None:
    """The script does nothing for it, for it is stopped, and then ends in good order."""

    async def main() -> None:
        async with served.node() as node:
            await node.run(1, "true")
            runner = node.runner()
            await node.session.clear([attempt_id(1)])
            os.kill(runner, signal.SIGSTOP)
            try:
                answer = Question[bool]("node", lambda words, body: words == ["bye"])
                node.session._control.request(b"bye\n", answer)
                assert await answer.result
            finally:
                os.kill(runner, signal.SIGCONT)
            assert list(served.spool.iterdir()) == []
            assert await node.watcher.next() == ("closed", "the shell there has ended")

    asyncio.run(main())


def test_it_leaves_what_others_need(served: Place) -> None:
    """Another sub-node is still there; then a job that nobody has cleared."""

    def kinds() -> set[str]:
        return {path.name.partition(".")[0] for path in (served.spool / QUEUE).iterdir()}

    async def main() -> None:
        async with served.node() as node, served.node("n2") as other:
            await node.run(1, "true")
            await node.session.clear([attempt_id(1)])
            await node.session.bye()
            assert kinds() == {"ctl", "epoch", "since"}
            await other.run(2, "true")
            await other.session.bye()
            assert kinds() >= {"2", "epoch"}

    asyncio.run(main())


def test_it_is_text_that_old_interpreters_read() -> None:
    text = serve_request().partition(b"\n")[2].decode("ascii")
    tree = ast.parse(text, feature_version=(3, 8))
    # Names in these are looked up when the function is made, and `list[bytes]` is an error before 3.9.
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            told = [each.annotation for each in function.args.args] + [function.returns]
            assert not any(isinstance(each, ast.Subscript) for each in told), function.name


def test_it_has_another_name_than_python(served: Place) -> None:
    """A job may be `pkill -f python`."""

    async def main() -> None:
        async with served.node() as node:
            await node.run(1, "true")
            (pid,) = node.starters(1)
            assert b"python" not in of_process(pid, "cmdline")
            assert of_process(pid, "comm") == b"pegasus\n"

    asyncio.run(main())


def test_it_leaves_nothing_in_a_jobs_surroundings(served: Place) -> None:
    """In the plainest of locales, where the interpreter adds to its environment."""
    served.env = {name: "" for name in os.environ if name.startswith(("LC_", "LANG"))}
    served.env |= {"LC_ALL": "", "LANG": "C"}
    seen: list[set[str]] = []

    async def main(place: Place) -> None:
        async with place.node() as node:
            await node.run(1, "true")
            _, _, _, size, _ = await node.run(2, "env; grep -E 'SigIgn|SigBlk' /proc/self/status; umask")
            lines = (await node.session.read(attempt_id(2), 0, size)).decode(errors="replace").splitlines()
            # bash counts itself in another place.
            seen.append({line for line in lines if not line.startswith(("PEGASUS_PYTHON=", "SHLVL="))})

    asyncio.run(main(served))
    plain = Place("bash", served.spool, served.env)
    shutil.rmtree(served.spool)
    asyncio.run(main(plain))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("text", ["exit 1", "echo not-ready >&3", "kill -9 $$", "exec false"])
def test_an_interpreter_that_is_of_no_use(served: Place, tmp_path: Path, text: str) -> None:
    broken = tmp_path / "python"
    broken.write_text(f"#!/bin/sh\n{text}\n")
    broken.chmod(0o755)
    served.env = {"PEGASUS_PYTHON": str(broken)}

    async def main() -> None:
        async with served.node() as node:
            for job in (1, 2):
                assert await node.run(job, "echo on") == ("exited", attempt_id(job), 0, 3, b"on\n")
                assert node.starters(job) == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("mask", "by_starter"), [(0o000, True), (0o077, True), (0o640, False), (0o200, False)]
)
def test_files_are_private_and_usable_whatever_umask_a_login_has(
    served: Place, mask: int, by_starter: bool
) -> None:
    """What the starter makes, it makes with the jobs' umask; one that it could not live with is for the script."""

    async def main() -> None:
        async with served.node() as node:
            job = await node.run(1, "umask; : >made; stat -c %a made; rm made")
            assert job[4] == b"%04o\n%o\n" % (mask, 0o666 & ~mask)
            assert bool(node.starters(1)) == by_starter
        for kind in ("job", "sh", "out"):
            assert file(served, f"1.1.{kind}").stat().st_mode & 0o777 == 0o600

    before = os.umask(mask)
    try:
        asyncio.run(main())
    finally:
        os.umask(before)


def test_where_the_ends_of_children_are_ignored_the_script_does_it(served: Place, tmp_path: Path) -> None:
    """Nobody could wait for the job then, but a shell that takes the signal for itself."""
    deaf = tmp_path / "python"
    deaf.write_text(
        f"#!{PYTHON}\nimport os, signal, sys\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        f"os.execv('{PYTHON}', ['{PYTHON}', *sys.argv[1:]])\n"
    )
    deaf.chmod(0o755)
    served.env = {"PEGASUS_PYTHON": str(deaf)}

    async def main() -> None:
        async with served.node() as node:
            assert (await node.run(1, "exit 3"))[2] == 3
            assert node.starters(1) == []

    asyncio.run(main())


@pytest.mark.parametrize(
    "lack", ["del posix.posix_spawn", "del time.CLOCK_BOOTTIME", "time.CLOCK_BOOTTIME = 999"]
)
def test_an_interpreter_without_what_is_needed(served: Place, tmp_path: Path, lack: str) -> None:
    """As before 3.8, or built for a system before that clock, or run on one."""
    old = tmp_path / "python"
    old.write_text(
        f"#!{PYTHON}\nimport posix, sys, time\n{lack}\n"
        "code = sys.argv[2]\nsys.argv[:] = ['-c', *sys.argv[3:]]\nexec(code)\n"
    )
    old.chmod(0o755)
    served.env = {"PEGASUS_PYTHON": str(old)}

    async def main() -> None:
        async with served.node() as node:
            assert (await node.run(1, "exit 3"))[2] == 3
            assert node.starters(1) == []

    asyncio.run(main())


@pytest.mark.parametrize("before", ["", "head -c 3 >/dev/null; "])
def test_an_interpreter_that_dies_later(served: Place, tmp_path: Path, before: str) -> None:
    """It may have taken a part of what is on the channel, which is of no use then."""
    broken = tmp_path / "python"
    broken.write_text(f"#!/bin/sh\necho ready >&3\n{before}exit 1\n")
    broken.chmod(0o755)
    served.env = {"PEGASUS_PYTHON": str(broken)}

    async def main() -> None:
        async with served.node() as node:
            assert (await node.run(1, "echo no"))[0] == "closed"
        served.env = {}
        async with served.node() as node:
            assert [report.spot for report in await node.session.ask([attempt_id(1)])] == [Spot.ABSENT]

    asyncio.run(main())


def test_the_starter_is_killed_while_its_job_runs(served: Place) -> None:
    go = served.spool.parent / "go"

    async def main() -> None:
        async with served.node() as node:
            node.session.start(attempt(1, f"while [ ! -e {go} ]; do sleep 0.05; done"))
            pid = await node.job_pid(1)
            os.kill(node.starters(1)[0], signal.SIGKILL)
            assert (await node.watcher.next())[0] == "closed"
        assert not gone(pid)
        async with served.node() as node:
            node.session.attach(attempt_id(1))
            go.touch()
            told, report = await node.watcher.next()
            assert (told, report.spot) == ("reported", Spot.VANISHED)

    asyncio.run(main())


def test_the_script_is_killed_while_a_job_of_its_starter_runs(served: Place) -> None:
    """The starter still writes down how the job ended."""
    go = served.spool.parent / "go"

    async def main() -> None:
        async with served.node() as node:
            node.session.start(attempt(1, f"while [ ! -e {go} ]; do sleep 0.05; done; exit 5"))
            await node.job_pid(1)
            os.kill(node.runner(), signal.SIGKILL)
        async with served.node() as node:
            assert [report.spot for report in await node.session.ask([attempt_id(1)])] == [Spot.RUNNING]
            node.session.attach(attempt_id(1))
            go.touch()
            assert await node.watcher.next() == ("exited", attempt_id(1), 5, 0, b"")

    asyncio.run(main())


def test_the_text_is_cut_off(served: Place) -> None:
    async def main() -> None:
        async with served.node() as node:
            await node.run(1, "true")
            (pid,) = node.starters(1)
            node.session._control._write(b"start 2.1 3 30 -\necho no >&2\necho ")
        await until(lambda: gone(pid), "the starter to leave")
        async with served.node() as node:
            assert await node.session.list() == [attempt_id(1)]

    asyncio.run(main())


def nameless(place: Place, starter: int) -> str:
    """A marker as it is between the start of job 2 and the line that names it."""
    words = file(place, "1.1.job").read_text().splitlines()[0].split()
    words[-3:-1] = [str(starter), started(starter).decode()]
    words[5:7] = [str(starter), words[-2]]
    return " ".join(words) + "\n"


def test_a_nameless_job_whose_starter_is_gone_can_never_run(served: Place) -> None:
    """It may be a process that is about to become the job and cannot be found: without its text it comes to nothing."""

    async def main() -> None:
        async with served.node() as node:
            await node.run(1, "true")
            stranger = a_process()
            file(served, "2.1.job").write_text(nameless(served, stranger.pid))
            file(served, "2.1.sh").write_text("echo no")
            (report,) = await node.session.ask([attempt_id(2)])
            assert report.spot is Spot.STARTING
            assert file(served, "2.1.sh").exists()
            stranger.kill()
            stranger.wait()
            (report,) = await node.session.ask([attempt_id(2)])
            assert report.spot is Spot.VANISHED
            assert not file(served, "2.1.sh").exists()

    asyncio.run(main())


def test_a_nameless_job_is_found_by_its_variable(served: Place) -> None:
    async def main() -> None:
        async with served.node() as node:
            await node.run(1, "true")
            stranger = a_process()
            file(served, "2.1.job").write_text(nameless(served, stranger.pid))
            stranger.kill()
            stranger.wait()
            job = a_process(PEGASUS_ATTEMPT=attempt_id(2))
            await until(lambda: carries(job.pid, f"PEGASUS_ATTEMPT={attempt_id(2)}"), "the job")
            (report,) = await node.session.ask([attempt_id(2)])
            assert report.spot is Spot.STARTING
            assert await node.session.end(attempt_id(2), 5) == ()
            assert job.wait(10) == -signal.SIGTERM

    asyncio.run(main())


def test_the_end_of_a_nameless_job_bars_its_start(
    served: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What `end` does while a starter is between marker and start, in the same order as both do it."""
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "ctl").touch()
    said: list[bytes] = []
    monkeypatch.setattr(starter_module, "say", said.append)
    mine = b"%d %b" % (os.getpid(), started(os.getpid()))
    starter = Starter(
        os.fsencode(f"{spool}/"), os.fsencode(spool / "ctl"), b"q" * 16, b"boot", b"m", mine, b"1"
    )

    def interrupted(path: bytes, text: bytes) -> bytes:
        reason = Starter.write_text(starter, path, text)
        with (spool / "2.1.job").open("a") as marker:
            marker.write("\nbarred .\n")
        return reason

    starter.start(b"1.1", b"exit 3", b"-", [])
    monkeypatch.setattr(starter, "write_text", interrupted)
    starter.start(b"2.1", f"touch {tmp_path}/ran".encode(), b"-", [])
    os.close(starter.null)
    assert said == [b"exit 1.1 3 0 0\n", b"exit 2.1 143 0 0\n"]
    assert not (tmp_path / "ran").exists()
    assert (spool / "2.1.job").read_text().splitlines()[-1] == "exit 143 ."


def test_end_bars_a_nameless_job(served: Place) -> None:
    async def main() -> None:
        async with served.node() as node:
            await node.run(1, "true")
            stranger = a_process()
            try:
                file(served, "2.1.job").write_text(nameless(served, stranger.pid))
                file(served, "2.1.sh").write_text("echo no")
                assert await node.session.end(attempt_id(2), 0.3) == ()
                assert "barred" in file(served, "2.1.job").read_text()
                assert not file(served, "2.1.sh").exists()
                # The starter is none of its processes.
                assert stranger.poll() is None
            finally:
                stranger.kill()
                stranger.wait()

    asyncio.run(main())


def test_what_is_cut_off_while_it_is_read_comes_as_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Its length has been said already, and the channel has to stay in step."""
    size = 3 * starter_module.BLOCK
    (tmp_path / "1.1.out").write_bytes(b"x" * size)
    pread = os.pread

    def cut(file: int, length: int, offset: int) -> bytes:
        os.truncate(tmp_path / "1.1.out", starter_module.BLOCK + 10)
        return pread(file, length, offset)

    starter = Starter(bytes(tmp_path) + b"/", b"ctl", b"q" * 16, b"boot", b"here", b"1 1", b"1")
    monkeypatch.setattr("posix.pread", cut)
    starter.read(b"1.1", b"5", b"1000000")
    starter.read(b"1.1", b"%d" % size, b"10")
    starter.read(b"2.1", b"0", b"10")
    came = b"x" * (starter_module.BLOCK + 5)
    lost = bytes(size - 10 - starter_module.BLOCK)
    os.close(starter.null)
    expected = b"data 1.1 %d\n%b%bdata 1.1 0\ndata 2.1 0\n" % (size - 5, came, lost)
    assert capfdbinary.readouterr().out == expected


@pytest.mark.skipif("busybox" not in SHELLS, reason="needs busybox")
def test_its_text_and_what_follows_are_told_apart_by_busybox(served: Place) -> None:
    """The first start comes in one write with the text. The head of busybox would take a part of it, too."""
    usual = os.environ["PATH"]
    served.env = {"PATH": f"{busybox_tools()}:{usual}"}

    async def main() -> None:
        async with served.node() as node:
            assert (await node.run(1, "echo here"))[4] == b"here\n"
            assert node.starters(1)
            long = "# " + "x" * 200_000 + "\necho there"
            # A request for the script, so that the next text is taken by it.
            await node.session.ask([attempt_id(1)])
            assert (await node.run(2, long))[4] == b"there\n"

    asyncio.run(main())


def test_a_deadline_is_of_the_clock_that_the_script_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container that may be the container's own: here it started 100 s ago, the machine long before."""
    said: list[bytes] = []
    monkeypatch.setattr(starter_module, "say", said.append)
    monkeypatch.setattr(starter_module, "uptime", lambda: 10_000)
    (tmp_path / "ctl").touch()
    starter = Starter(bytes(tmp_path) + b"/", bytes(tmp_path / "ctl"), b"q" * 16, b"boot", b"m", b"1 1", b"1")
    starter.start(b"1.1", b"exit 3", b"10000", [])
    starter.start(b"2.1", b"exit 3", b"9999", [])
    os.close(starter.null)
    assert said == [b"exit 1.1 3 0 0\n", b"refused 2.1 the request to start it came too late\n"]


def test_the_scripts_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = round(float(Path("/proc/uptime").read_text().split()[0]) * 100)
    assert own <= starter_module.uptime() < own + 6000
    opened = os.open
    monkeypatch.setattr("posix.open", lambda path, flags: opened(tmp_path / "none", flags))
    assert starter_module.uptime() > 10**12, "refused, if it cannot be told"


def test_every_job_has_its_own_start_time(served: Place) -> None:
    """Whether it was asked for or told by the clock: who looks for the job later compares it with /proc's."""

    async def main() -> None:
        async with served.node() as node:
            for job in range(1, 3 * starter_module.TRIALS):
                *_, stat = await node.run(job, "cat /proc/$$/stat")
                (named,) = (line for line in node.marker(job) if line[0] == "pid")
                pid, start = named[1].encode(), named[2].encode()
                assert stat.split()[0] == pid
                assert stat.rpartition(b")")[2].split()[19] == start

    asyncio.run(main())


@pytest.mark.parametrize("off_from", [0, starter_module.TRIALS - 1])
def test_where_proc_counts_otherwise_it_is_always_asked(
    off_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    starter = Starter(b"spool/", b"ctl", b"q" * 16, b"boot", b"here", b"1 1", b"1")
    os.close(starter.null)
    starter.agreed = 0
    for job in range(3 * starter_module.TRIALS):
        found = b"501" if job >= off_from else b"500"
        monkeypatch.setattr(starter_module, "started", lambda pid, found=found: found)
        assert starter.start_of(7, 500, 500) == found
        assert starter.start_of(7, 499, 500) == found


@pytest.mark.parametrize("is_linux", [True, False])
def test_the_clock_is_believed_after_it_has_agreed(monkeypatch: pytest.MonkeyPatch, is_linux: bool) -> None:
    """And never on a kernel that only looks like Linux."""
    asked: list[int] = []

    def started(pid: int) -> bytes:
        asked.append(pid)
        return b"500"

    monkeypatch.setattr(starter_module, "LINUX", "/proc/self" if is_linux else "/proc/self/none")
    starter = Starter(b"spool/", b"ctl", b"q" * 16, b"boot", b"here", b"1 1", b"1")
    os.close(starter.null)
    monkeypatch.setattr(starter_module, "started", started)
    for job in range(2 * starter_module.TRIALS):
        assert starter.start_of(job, 500, 500) == b"500"
    assert asked == list(range((1 if is_linux else 2) * starter_module.TRIALS))
    # A tick went by, and nobody knows when in it the job was made.
    starter.start_of(77, 499, 500)
    assert asked[-1] == 77
