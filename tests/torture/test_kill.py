"""The controller ends at any moment: kill -9, TERM, and a pause. G1 to G4 of docs/guarantees.md."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.torture.conftest import NewWorld, sized
from tests.torture.oracle import judge, look
from tests.torture.plan import random_plan
from tests.torture.world import Controller, World


def random_moment(world: World, controller: Controller) -> None:
    """Wait for some moment of a run: in its beginning, or a little after some more jobs have started."""
    rng = world.rng
    if rng.random() < 0.3:
        time.sleep(rng.uniform(0.05, 1.2))
        return
    world.wait_for_starts(world.began() + rng.choice([1, 1, 2, 5, rng.randint(1, 40)]), controller)
    time.sleep(rng.choice([0, 0, rng.uniform(0, 0.02), rng.uniform(0, 0.3)]))


def kill_at_random(world: World, kills: int) -> int:
    """Start and kill controllers until that has been done `kills` times, or the queue has come to its end."""
    done = 0
    while done < kills:
        controller = world.start()
        random_moment(world, controller)
        code = controller.kill()
        if code != -signal.SIGKILL:
            assert code in (0, 1), f"exit code {code}; it said:\n{controller.text[-4000:]}"
            if not look(world):
                break
        done += 1
        look(world)
    return done


@pytest.mark.parametrize("mode", ["q", "b"])
def test_kill_9(new_world: NewWorld, rng: random.Random, mode: str) -> None:
    kills = sized(3, 60 if mode == "q" else 20, 1000)
    jobs = sized(60, 1000, 20_000) if mode == "q" else sized(12, 60, 3000)
    world = new_world(random_plan(rng, jobs), rng, nodes=3, subnodes=8 if mode == "q" else 4, mode=mode)
    done = kill_at_random(world, kills)
    world.finish()
    print(f"{done} kills: {judge(world)}")


def pause(world: World, controller: Controller) -> None:
    controller.process.send_signal(signal.SIGSTOP)
    time.sleep(world.rng.uniform(0, 1.5))
    controller.process.send_signal(signal.SIGCONT)


def test_all_signals(new_world: NewWorld, rng: random.Random) -> None:
    """TERM (finish what runs), HUP (leave it to the next run), a pause, KILL, in any order and mixture."""
    world = new_world(random_plan(rng, sized(60, 500, 10_000), 0.2), rng, nodes=2, subnodes=6)
    sent = 0
    while sent < sized(4, 40, 800):
        controller = world.start()
        while controller.ended is None:
            random_moment(world, controller)
            sent += 1
            match rng.choice(["pause", "TERM", "HUP", "KILL", "TERM, KILL", "KILL in a pause"]):
                case "pause":
                    pause(world, controller)
                case "TERM":
                    controller.signal(signal.SIGTERM)
                    controller.wait(60)
                case "HUP":
                    controller.signal(signal.SIGHUP)
                    controller.wait(60)
                case "TERM, KILL":
                    controller.signal(signal.SIGTERM)
                    time.sleep(rng.uniform(0, 0.3))
                    controller.kill()
                case "KILL in a pause":
                    controller.process.send_signal(signal.SIGSTOP)
                    controller.kill()
                case _:
                    controller.kill()
        # -TERM and -HUP: the signal came before the run had begun to listen.
        allowed = (0, 1, 6, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP)
        assert controller.ended in allowed, f"exit code {controller.ended}:\n{controller.text[-3000:]}"
        if not look(world):
            break
    world.finish()
    print(f"{sent} signals: {judge(world)}")
