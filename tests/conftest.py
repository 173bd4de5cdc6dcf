"""What every test gets: a hard time limit, a check for leaks, `async def` tests, and real SSH servers.

A test that needs servers asks for `farm` (four nodes, shared by the whole session: leave them as they are)
or makes its own with `new_server`; `ssh_home` gives a HOME whose .ssh/config leads to the farm.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import inspect
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

import pytest

from tests.support import procs
from tests.support.sshd import SshFarm, SshServer, find_sshd

DEFAULT_TIMEOUT = 120
"""Seconds that a test may take; `@pytest.mark.timeout(n)` says otherwise."""

LEAK_GRACE = 5.0
"""Seconds that a process may live on after the test that started it."""

NewServer = Callable[..., SshServer]

_real_stderr = pytest.StashKey[TextIO]()
_serial = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    # In the background of a script it is ignored, and what tests start would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "timeout(seconds): how long the test may take (default 120)")
    config.addinivalue_line(
        "markers", "leaks(reason): the test leaves processes or descriptors behind on purpose"
    )
    config.stash[_real_stderr] = os.fdopen(os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2), "w")


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_real_stderr].close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses a server is marked `sshd`, and does not run where there is none."""
    absent = find_sshd() is None
    required = os.environ.get("PEGASUS_REQUIRE_SSHD") == "1"
    for item in items:
        if {"farm", "new_farm"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.sshd)
        if absent and not required and item.get_closest_marker("sshd"):
            item.add_marker(
                pytest.mark.skip(reason="needs OpenSSH's server (sshd), which is not installed here")
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Fail a test that takes too long; should even that not get through, print all stacks and leave."""
    marker = item.get_closest_marker("timeout")
    seconds = float(marker.args[0]) if marker else DEFAULT_TIMEOUT

    def too_long(signum: int, frame: object) -> None:
        faulthandler.dump_traceback(item.config.stash[_real_stderr], all_threads=True)
        pytest.fail(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + 20, exit=True, file=item.config.stash[_real_stderr])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests in a loop of their own; tasks that they leave running are a failure."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def main() -> None:
        await pyfuncitem.obj(**arguments)
        for _ in range(3):  # what has just been closed or cancelled may need a turn or two to end
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left running: {left}"

    asyncio.run(main())
    return True


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process started by the test, however detached, and no descriptor is left when it ends."""
    mark = f"{os.getpid()}.{next(_serial)}"
    monkeypatch.setenv("PEGASUS_TEST_MARK", mark)
    variables = [f"PEGASUS_TEST_MARK={mark}"]
    if "farm" in request.fixturenames:
        variables += [server.variable for server in request.getfixturevalue("farm")]
    before = _descriptors()
    yield
    if request.node.get_closest_marker("leaks"):
        return

    def left() -> list[int]:
        return [pid for variable in variables for pid in procs.carriers(variable)]

    try:
        procs.wait_until(lambda: not left(), "processes to end", LEAK_GRACE)
    except AssertionError:
        pids = left()
        names = [procs.command_of(pid) for pid in pids]
        procs.kill(pids)
        if names:
            pytest.fail(f"processes left running: {names}")
    if set(_descriptors()) - set(before):
        gc.collect()
        leaked = {fd: to for fd, to in _descriptors().items() if before.get(fd) != to}
        if len(_descriptors()) > len(before):
            pytest.fail(f"descriptors left open: {leaked}")


def _descriptors() -> dict[int, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):
            found[int(fd)] = str(Path(f"/proc/self/fd/{fd}").readlink())
    return found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty HOME for this process and its children, with no agent and no XDG directories elsewhere."""
    directory = tmp_path / "home"
    directory.mkdir()
    monkeypatch.setenv("HOME", str(directory))
    for name in list(os.environ):
        if name.startswith("XDG_") or name in ("SSH_AUTH_SOCK", "VISUAL", "EDITOR"):
            monkeypatch.delenv(name)
    return directory


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is the current one."""
    directory = tmp_path / "work"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshFarm]:
    """node-1 ... node-4, real sshd, for the whole session."""
    _need_sshd()
    with SshFarm(tmp_path_factory.mktemp("farm"), 4) as servers:
        yield servers


@pytest.fixture
def ssh_home(farm: SshFarm, home: Path) -> Path:
    """HOME with an .ssh/config that leads to the farm and a known_hosts that knows it."""
    farm.configure(home)
    return home


@pytest.fixture
def new_farm(tmp_path: Path) -> Iterator[SshFarm]:
    """A farm for the test's own servers: `new_farm.add(name, options).start()`; all end with the test."""
    _need_sshd()
    with SshFarm(tmp_path / "servers", 0) as servers:
        yield servers


@pytest.fixture
def new_server(new_farm: SshFarm) -> NewServer:
    """Start a server of the test's own: new_server("name", {"MaxSessions": "2"})."""

    def make(name: str, options: Mapping[str, str] | None = None) -> SshServer:
        return new_farm.add(name, options).start()

    return make


def _need_sshd() -> None:
    if find_sshd() is None:
        pytest.fail(
            "PEGASUS_REQUIRE_SSHD is set, but there is no sshd; on Debian: apt-get install openssh-server"
        )
