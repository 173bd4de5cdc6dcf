"""Two controllers on one queue: one wins, and one that was overtaken can start nothing. G7 of docs/guarantees.md."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import procs
from tests.torture.conftest import NewWorld, sized
from tests.torture.oracle import judge
from tests.torture.plan import CALL, Plan, even_plan, random_plan
from tests.torture.world import Controller, World

GATE = 'n=1; until [ -e "$HOME/go" ]; do sleep 0.05; done; . "$HOME/job"'
"""A task that ends when it is let."""
STOPPED = "stopped by SIGSTOP"
"""What strace says when that has come."""


def gated_plan() -> Plan:
    plan = even_plan(6)
    return Plan(plan.tasks, plan.text.replace(f"n=1; {CALL}", GATE), ())


def gate(world: World) -> list[Path]:
    return [home / "go" for home in world.homes.values()]


def test_start_race(new_world: NewWorld, rng: random.Random) -> None:
    """Of many that start at once one wins; the others name it, and end with 4."""
    world = new_world(gated_plan(), rng, nodes=1, subnodes=3)
    for _ in range(sized(1, 6, 300)):
        world.reset(gated_plan())
        for go in gate(world):
            go.unlink(missing_ok=True)
        rivals = [world.start() for _ in range(sized(3, 6, 8))]
        procs.wait_until(lambda: sum(r.ended is None for r in rivals) <= 1, "all but one to end", 60)  # noqa: B023
        [winner] = [r for r in rivals if r.ended is None]
        for rival in rivals:
            if rival is not winner:
                assert rival.ended == 4, f"exit code {rival.ended}: {rival.text}"
                assert str(winner.pid) in rival.text, rival.text
        for go in gate(world):
            go.touch()
        assert winner.wait(60) == 0, winner.text
        judge(world)


def wake(paused: Controller) -> int:
    """Let it go on, to its end. Again and again: strace may stop each of its threads."""
    for _ in range(120):
        paused.signal(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            return paused.process.wait(0.5)
    return paused.wait(1)


def overtake(world: World, paused: Controller) -> None:
    """A second controller takes the queue of one that stands still, after its lock was removed; then that wakes up."""
    for name in ("controller.lock", "controller.json"):
        (world.state / name).unlink(missing_ok=True)
    began = world.began()
    second = world.start()
    # If the first one was paused with the queue's lock in its hands, the second cannot start anything before.
    world.wait_for_starts(began + world.rng.choice([0, 1, 3]), second, within=4)
    code = wake(paused)
    if code not in (0, 1):  # it had nothing left to do
        assert code == 4, f"exit code {code} of the one that was overtaken: {paused.text[-3000:]}"
        assert "overtaken" in paused.text, paused.text[-3000:]
    assert second.wait() in (0, 1), second.text[-3000:]
    judge(world)


def test_paused_and_overtaken(new_world: NewWorld, rng: random.Random) -> None:
    """Paused at any moment."""
    world = new_world(random_plan(rng, 1), rng, nodes=2, subnodes=5)
    overtaken = 0
    for _ in range(sized(1, 5, 300)):
        world.reset(random_plan(rng, 60, 0.3))
        first = world.start()
        world.wait_for_starts(rng.randint(1, 30), first)
        first.signal(signal.SIGSTOP)
        overtake(world, first)
        overtaken += first.ended == 4
    print(f"overtaken {overtaken} times")
    assert overtaken >= sized(0, 1, 1)


def test_paused_in_the_middle_of_sending(new_world: NewWorld, rng: random.Random) -> None:
    """Paused with a start in its hands: the ledger has it, the node has not heard of it."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace, which is not installed here")
    world = new_world(random_plan(rng, 1), rng, nodes=1, subnodes=3, local=False)
    overtaken = 0
    for run in range(sized(1, 5, 200)):
        world.reset(random_plan(rng, 30, 0.2))
        when = rng.randint(25, 80)
        trace = world.root / f"trace-{run}"
        words = [strace, "-f", "-qqq", "-o", str(trace), "-e", "trace=sendto"]
        first = world.start(wrapper=[*words, "-e", f"inject=sendto:signal=SIGSTOP:when={when}"])
        while first.ended is None and STOPPED not in (trace.read_text() if trace.exists() else ""):
            time.sleep(0.02)
        overtake(world, first)
        overtaken += first.ended == 4
    print(f"overtaken {overtaken} times")
