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
    kills = sized(4, 60 if mode == "q" else 20, 1000)
    jobs = sized(60, 1000, 20_000) if mode == "q" else sized(12, 60, 3000)
    world = new_world(random_plan(rng, jobs), rng, nodes=3, subnodes=8 if mode == "q" else 4, mode=mode)
    done = kill_at_random(world, kills)
    world.finish()
    print(f"{done} kills: {judge(world)}")
