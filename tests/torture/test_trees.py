"""Stop means stop: cancel, time-out and `stop --now` through the whole program, for jobs that do all to live on. G6."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest
import yaml

from tests.node.test_end import ZOO
from tests.support import procs
from tests.torture.conftest import NewWorld, sized
from tests.torture.net import waited_for
from tests.torture.plan import Plan
from tests.torture.world import Controller, World


def some(first: int) -> list[str]:
    """Kinds of trees: one in six, one in two, or all many times."""
    return sized(list(ZOO)[first::6], list(ZOO)[first::2], list(ZOO) * 20)


class Zoo:
    """A world whose queue has jobs of each kind; their sleepers are a program of the world's own, to be found again."""

    def __init__(self, new_world: NewWorld, kinds: list[str], options: str = "") -> None:
        self.count = len(kinds)
        # Two sessions are one fewer than a job that says something and is to be ended would like to have.
        self.world: World = new_world(
            Plan({}, "", ()), nodes=2, subnodes=7, server_options={"MaxSessions": "2"}
        )
        self.sleep = self.world.root / "sleep-of-zoo"
        shutil.copy(str(shutil.which("sleep")), self.sleep)
        self.world.queue.write_text("".join(self._entry(ZOO[kind], options) for kind in kinds))

    def _entry(self, command: str, options: str) -> str:
        command = re.sub(r"\bsleep (?=\d)", f"{self.sleep} ", command)
        command = command.replace("$PWD_OF_TEST", str(self.world.root))
        began = 'echo "$PEGASUS_ATTEMPT 0 $PEGASUS_SUBNODE" >>"$HOME/began"; echo up'
        lines = "".join(f"    {line}\n" for line in (began, command))
        return f"- command: |\n{lines}" + (f"  options: {{{options}}}\n" if options else "")

    def alive(self) -> list[str]:
        """The processes of the jobs that live, whatever they have done to their environment."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            pid = int(path.parent.name)
            try:
                words = path.read_bytes()
            except OSError:
                continue
            ours = (
                str(self.world.root).encode() in words and b"pegasus_py" not in words and b"sshd" not in words
            )
            if ours and procs.alive(pid):
                found.append(words.replace(b"\0", b" ").decode(errors="replace")[-120:])
        return found

    def wait_for_jobs(self, controller: Controller, before: int) -> None:
        """Until as many as there are sub-nodes have begun, or all; then some moment longer, in which they grow."""
        wanted = min(before + len(self.world.subnodes), self.count)
        self.world.wait_for_starts(wanted, controller)
        time.sleep(0.3)

    def left(self) -> object:
        """The entries in the queue file."""
        return yaml.load(self.world.queue.read_text(), yaml.BaseLoader)

    def states(self) -> list[str]:
        told = self.world.pegasus("status", "--json", "--limit", "1000")
        return [job["state"] for job in json.loads(told.stdout)["jobs"]]

    def check(self, state: str) -> None:
        waited_for(lambda: not self.alive(), lambda: f"the end of {self.alive()}", 5.0)
        assert self.states() == [state] * self.count
        if self.world.spools():
            self.world.finish()
        assert self.world.spools() == []


@pytest.mark.timeout(300)
def test_cancel(new_world: NewWorld) -> None:
    zoo = Zoo(new_world, sized(some(0), list(ZOO), some(0)))
    controller = zoo.world.start("--grace", "1s")
    ended = 0
    while controller.ended is None and zoo.world.began() < zoo.count:
        zoo.wait_for_jobs(controller, ended)
        told = zoo.world.pegasus("cancel", "--all")
        assert told.returncode == 0, told.stderr
        assert "processes" not in told.stdout, told.stdout
        ended += len(told.stdout.splitlines())
    while controller.ended is None:
        zoo.world.pegasus("cancel", "--all")
    assert controller.wait() == 1, controller.text
    zoo.check("cancelled")


@pytest.mark.timeout(300)
def test_timeout(new_world: NewWorld) -> None:
    zoo = Zoo(new_world, some(0), "timeout: 1s")
    controller = zoo.world.start("--grace", "1s")
    assert controller.wait() == 1, controller.text
    zoo.check("timed-out")


@pytest.mark.timeout(300)
def test_stop_now(new_world: NewWorld) -> None:
    zoo = Zoo(new_world, some(1))
    while (before := zoo.world.began()) < zoo.count:
        controller = zoo.world.start("--grace", "1s")
        zoo.wait_for_jobs(controller, before)
        assert zoo.world.pegasus("stop", "--now").returncode == 0
        left = zoo.left()
        assert controller.wait() in (1, 6), controller.text
        assert zoo.left() == left
        assert not zoo.alive()
    zoo.check("cancelled")


def test_a_cancel_command_reaches_what_signals_do_not(new_world: NewWorld) -> None:
    """A process without our variable and outside the group: a container, say."""
    zoo = Zoo(new_world, [])
    pid_file = zoo.world.root / "pid"
    escaped = f"env -i setsid sh -c 'echo $$ >{pid_file}; exec {zoo.sleep} 600' & {zoo.sleep} 601"
    zoo.world.queue.write_text(
        f"- command: |\n    {escaped}\n  pid: {pid_file}\n  options: {{cancel: 'kill -KILL $(cat {{{{ pid }}}})'}}\n"
    )
    zoo.count = 1
    controller = zoo.world.start("--grace", "1s")
    waited_for(lambda: pid_file.exists() and len(zoo.alive()) >= 2, lambda: f"two sleepers: {zoo.alive()}")
    told = zoo.world.pegasus("cancel", "1")
    assert told.returncode == 0, told.stderr
    assert controller.wait() == 1
    zoo.check("cancelled")
