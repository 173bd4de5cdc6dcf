"""What happens to nodes: sshd dies, sessions are killed, the node reboots, the script there is killed. G2 and G3."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.support import procs
from tests.support.sshd import SshServer
from tests.torture.conftest import NewWorld, sized
from tests.torture.net import Net, said, waited_for
from tests.torture.oracle import judge
from tests.torture.plan import CALL, Plan, Task, random_plan
from tests.torture.world import Controller, World

SPOOL = ".local/state/pegasus"


def at_random(world: World, controller: Controller, times: int, act: Callable[[], object]) -> int:
    """Do it at some moment after another, until it has been done `times` times or the run is over."""
    done = 0
    while done < times and controller.ended is None:
        world.wait_for_starts(world.began() + world.rng.choice([0, 1, 1, 3]), controller, within=5)
        time.sleep(world.rng.choice([0, world.rng.uniform(0, 0.05), world.rng.uniform(0, 0.5)]))
        act()
        done += 1
    return done


def reboot(server: SshServer, *, spool_gone: bool) -> None:
    """All processes of the node end, it has another boot id, and it serves again."""
    server.stop()
    if spool_gone:
        shutil.rmtree(server.home / SPOOL, ignore_errors=True)
    server.new_boot_id()
    server.start()


def runners(world: World) -> list[int]:
    """The pids of the scripts on the nodes that may start jobs now."""
    found = []
    for home in world.homes.values():
        for claim in (home / SPOOL).glob("*/ctl.*"):
            with suppress(OSError, IndexError):
                found.append(int(claim.read_text().split()[0]))
    return [pid for pid in found if procs.alive(pid)]


# --- sshd -------------------------------------------------------------------------------------------------------


def test_sshd_and_sessions_die(new_world: NewWorld, rng: random.Random) -> None:
    """With as few sessions and logins as a server may be set to, jobs neither fail nor are lost."""
    tight = {"MaxSessions": "2", "MaxStartups": "2:50:5"}
    world = new_world(
        random_plan(rng, sized(40, 300, 20_000), 0.5), rng, nodes=3, subnodes=7, server_options=tight
    )

    def act() -> None:
        server = rng.choice(list(world.farm))
        if rng.random() < 0.5:
            pids = server.sessions()
            procs.kill(rng.sample(pids, rng.randint(0, len(pids))))
        else:
            server.crash()
            time.sleep(rng.choice([0, rng.uniform(0, 1)]))
            server.start()

    controller = world.start("--set-aside-after", "0")
    done = at_random(world, controller, sized(4, 30, 1000), act)
    assert controller.wait() in (0, 1), controller.text[-4000:]
    if world.spools():
        world.finish()
    print(f"{done} times: {judge(world)}")


# --- the script on the node -------------------------------------------------------------------------------------


def test_the_script_is_killed(new_world: NewWorld, rng: random.Random) -> None:
    """A job whose script was killed may be lost, for nobody wrote its status down; it never runs again."""
    world = new_world(random_plan(rng, sized(40, 300, 10_000), 0.3), rng, nodes=2, subnodes=6)

    def act() -> None:
        if pids := runners(world):
            procs.kill([rng.choice(pids)])

    controller = world.start("--set-aside-after", "0")
    done = at_random(world, controller, sized(5, 40, 2000), act)
    assert controller.wait() in (0, 1), controller.text[-4000:]
    if world.spools():
        world.finish()
    verdict = judge(world, may_lose=True)
    assert verdict.lost <= done
    print(f"{done} kills: {verdict}")


# --- reboots ----------------------------------------------------------------------------------------------------


def test_reboots_at_random(new_world: NewWorld, rng: random.Random) -> None:
    world = new_world(random_plan(rng, sized(40, 300, 10_000), 0.4), rng, nodes=3, subnodes=6, local=False)

    def act() -> None:
        reboot(rng.choice(list(world.farm)), spool_gone=rng.random() < 0.5)

    controller = world.start("--set-aside-after", "0")
    done = at_random(world, controller, sized(3, 20, 1000), act)
    assert controller.wait() in (0, 1), controller.text[-4000:]
    if world.spools():
        world.finish()
    verdict = judge(world, may_lose=True)
    assert verdict.lost <= 2 * done
    print(f"{done} reboots: {verdict}")


PATIENT_JOB = """\
printf '%s %s %s\\n' "$PEGASUS_ATTEMPT" "$n" "$PEGASUS_SUBNODE" >>"$HOME/began"
while [ "$n" = 1 ] && [ ! -e "$HOME/go" ]; do sleep 0.05; done
read -r _s _x _o <"{plan}/$n"
printf 'task %s, line 1: \\303\\244 \\377\\033[1m\\r\\n' "$n"
exit "$_x"
"""

ENDS = {
    # When it reboots: what becomes of the job if the spool is kept, and if it is gone.
    # (Whether a request was on its way nobody knows, and what a node wrote just before it went down may be gone.)
    "recorded": ({"failed", "lost"}, {"failed", "lost"}),
    "starting": ({"lost"}, {"lost"}),
    "running": ({"lost"}, {"lost"}),
    "exited": ({"failed"}, {"lost"}),
    "collected": ({"failed"}, {"failed"}),
}


class Victim:
    """A world of one node behind a proxy, a daemon connected to it, and task 1, which waits for a file to end."""

    def __init__(self, new_world: NewWorld, options: str = "", *, starter: bool = True) -> None:
        tasks = {1: Task(1, 0, 3, 1), 2: Task(2, 0, 0, 1)}
        self.options = options
        self.world = new_world(Plan(tasks, "", ()), nodes=1, subnodes=1, local=False, starter=starter)
        self.server = self.world.farm["node-1"]
        (self.server.home / "job").write_text(PATIENT_JOB.format(plan=self.world.root / "plan"))
        self.net = Net(self.world)
        self.proxy = self.net["node-1"]
        self.start()
        waited_for(self.is_up, lambda: "a session")

    def start(self) -> None:
        self.controller = self.world.start("--daemon")

    def is_up(self) -> bool:
        """A session is open, and the node knows it (see `since` in the node-side script)."""
        return any((self.server.home / SPOOL).glob("*/since.*"))

    def add(self, number: int, filler: str = "") -> None:
        with self.world.queue.open("a") as queue:
            queue.write(f"- command: 'n={number}; {CALL}{filler}'\n  options: {{{self.options}}}\n")

    def consumed(self) -> bool:
        return self.world.consumed.exists() and "n=1" in self.world.consumed.read_text()

    def marker(self) -> str:
        """What the spool has of task 1's start."""
        paths = list((self.server.home / SPOOL).glob("*/1.1.job"))
        return paths[0].read_text() if paths else ""

    def go(self) -> None:
        (self.server.home / "go").touch()

    def reach(self, phase: str) -> None:
        """Bring task 1 there."""
        match phase:
            case "recorded":
                self.proxy.stall(back=False)
                self.add(1)
                waited_for(self.consumed, lambda: "the pop")
            case "starting":
                # A long command comes in pieces; the marker is made after the first.
                self.proxy.block, self.proxy.delay = 512, 0.01
                self.add(1, " #" + "x" * 400_000)
                waited_for(self.marker, lambda: "the marker")
                self.proxy.stall(back=False)
                assert not self.world.began()
            case "running":
                self.add(1)
                self.world.wait_for_starts(1, self.controller)
            case "exited":
                self.add(1)
                self.world.wait_for_starts(1, self.controller)
                self.proxy.stall(onward=False)
                self.go()
                waited_for(lambda: "exit 3 ." in self.marker(), lambda: "the exit status in the spool")
            case "collected":
                self.add(1)
                self.world.wait_for_starts(1, self.controller)
                self.go()
                said(self.controller, "job 1 failed")
                self.proxy.stall(back=False)

    def states(self) -> dict[int, str]:
        told = self.world.pegasus("status", "--json")
        return {job["job"]: job["state"] for job in json.loads(told.stdout)["jobs"]}

    def end(self) -> None:
        """Run task 2, and stop."""
        self.add(2)
        waited_for(lambda: "succeeded" in self.states().values(), lambda: f"task 2: {self.states()}")
        self.world.pegasus("stop", "--wait")
        self.controller.wait()
        if self.world.spools():
            self.world.finish()


CASES = [
    pytest.param(phase, spool_gone, controller_dies, id="-".join([phase, *kept, *dies]))
    for phase in ENDS
    for spool_gone, kept in ((False, ["spool-kept"]), (True, ["spool-gone"]))
    for controller_dies, dies in ((False, []), (True, ["controller-dies"]))
]


@pytest.mark.parametrize(
    ("phase", "spool_gone", "controller_dies"), sized(CASES[10:12], CASES[::3], CASES * 50)
)
def test_reboot_in_each_phase(
    new_world: NewWorld, phase: str, spool_gone: bool, controller_dies: bool
) -> None:
    # starter.py has the whole command before it makes a marker, and is never between the two.
    victim = Victim(new_world, starter=phase != "starting")
    with victim.net:
        victim.reach(phase)
        if controller_dies:
            victim.controller.kill()
        reboot(victim.server, spool_gone=spool_gone)
        victim.go()
        victim.net.mend()
        if controller_dies:
            victim.start()
        waited_for(lambda: victim.states().get(1) in ENDS[phase][spool_gone], lambda: f"{victim.states()}")
        victim.end()
    verdict = judge(victim.world, may_lose=True)
    assert verdict.starts <= 2


def test_a_reboot_with_retries(new_world: NewWorld) -> None:
    victim = Victim(new_world, "retries: 1, retry_on: [lost]")
    with victim.net:
        victim.reach("running")
        reboot(victim.server, spool_gone=False)
        victim.go()
        waited_for(lambda: victim.states().get(1) == "failed", lambda: f"{victim.states()}")
        victim.end()
    assert judge(victim.world, retries=1).retried == 1
