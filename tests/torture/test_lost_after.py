"""A node is out of reach for longer than `lost_after`: its job runs elsewhere, and the old attempt comes to nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support import procs
from tests.support.sshd import SshServer
from tests.torture.conftest import NewWorld
from tests.torture.net import Net, said, waited_for
from tests.torture.oracle import judge
from tests.torture.plan import CALL, Plan, Task
from tests.torture.world import World

LOST_AFTER = 3
OPTIONS = f"  options: {{lost_after: {LOST_AFTER}s, retries: 1, retry_on: [lost]}}\n"

ENDLESS_AT_FIRST = """\
printf '%s %s %s\\n' "$PEGASUS_ATTEMPT" "$n" "$PEGASUS_SUBNODE" >>"$HOME/began"
case $PEGASUS_ATTEMPT in 1.1.*) while :; do sleep 0.1; done ;; esac
read -r _s _x _o <"{plan}/$n"
printf 'task %s, line 1: \\303\\244 \\377\\033[1m\\r\\n' "$n"
exit "$_x"
"""
"""The first attempt of task 1 does not come to an end."""


class Pair:
    """Two nodes behind proxies, and a daemon connected to both; task 1 is on one of them, `first`."""

    def __init__(self, new_world: NewWorld) -> None:
        tasks = {1: Task(1, 0, 3, 1), 2: Task(2, 0, 0, 1)}
        self.world: World = new_world(Plan(tasks, "", ()), nodes=2, subnodes=2, local=False)
        for home in self.world.homes.values():
            (home / "job").write_text(ENDLESS_AT_FIRST.format(plan=self.world.root / "plan"))
        self.net = Net(self.world)
        self.controller = self.world.start("--daemon", "--set-aside-after", "0", "--grace", "1s")
        waited_for(self.both_are_up, lambda: f"both nodes; it said: {self.controller.text}")

    def both_are_up(self) -> bool:
        homes = self.world.homes.values()
        return all(list((home / ".local/state/pegasus").glob("*/since.*")) for home in homes)

    def add(self, number: int) -> None:
        with self.world.queue.open("a") as queue:
            queue.write(f"- command: 'n={number}; {CALL}'\n{OPTIONS}")

    def first(self) -> SshServer:
        """The node that has the first attempt of task 1."""
        waited_for(lambda: self.world.consumed.exists(), lambda: "the pop")
        [job] = json.loads(self.world.pegasus("status", "--json").stdout)["jobs"]
        return self.world.farm[job["subnode"]]

    def started_on(self, server: SshServer) -> int:
        return sum(node == server.name for _, _, _, node in self.world.starts())

    def end(self) -> None:
        self.add(2)
        said(self.controller, "task 2, line 1")
        assert self.world.pegasus("stop", "--wait").returncode == 0
        assert self.controller.wait() == 1
        if self.world.spools():
            self.world.finish()


@pytest.fixture
def pair(new_world: NewWorld) -> Iterator[Pair]:
    pair = Pair(new_world)
    with pair.net:
        yield pair


def test_a_job_that_runs_is_given_up_and_ended_when_its_node_is_back(pair: Pair) -> None:
    pair.add(1)
    waited_for(pair.world.began, lambda: "the start")
    first = pair.first()
    pair.net[first.name].stall()
    said(pair.controller, "job 1 is lost")
    said(pair.controller, "job 1 failed")

    [(attempt, *_)] = [start for start in pair.world.starts() if start[0].startswith("1.1.")]

    def old() -> list[str]:
        return [procs.command_of(pid) for pid in procs.carriers(f"PEGASUS_ATTEMPT={attempt}")]

    assert old(), "what runs on a node out of reach goes on"
    pair.net[first.name].flow()
    waited_for(lambda: not old(), lambda: f"the end of the old attempt: {old()}")
    pair.end()
    verdict = judge(pair.world, retries=1)
    assert (verdict.starts, verdict.retried) == (3, 1)


def test_a_start_that_was_held_up_does_not_happen_after_it_was_given_up(pair: Pair) -> None:
    """The node reads the request late, while we cannot reach it: nobody but itself can refuse."""
    for proxy in pair.net.proxies.values():
        proxy.refuse()
        proxy.stall(back=False)
    pair.add(1)
    first = pair.first()
    for name, proxy in pair.net.proxies.items():
        if name != first.name:
            proxy.flow()
            proxy.refuse(False)
    said(pair.controller, "job 1 is lost")
    said(pair.controller, "job 1 failed")
    assert first.sessions() and not pair.started_on(first)
    pair.net[first.name].flow()
    waited_for(lambda: not first.sessions(), lambda: f"the old session to end: {first.sessions()}")
    waited_for(lambda: not first.processes(), lambda: f"its processes to end: {first.processes()}")
    assert not pair.started_on(first)
    pair.net[first.name].refuse(False)
    pair.end()
    assert judge(pair.world, retries=1).starts == 2
