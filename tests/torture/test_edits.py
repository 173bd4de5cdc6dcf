"""The queue is edited and appended to while it is popped, against a model of what was asked for."""

from __future__ import annotations

import random
import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.torture import editor
from tests.torture.conftest import NewWorld, sized
from tests.torture.oracle import judge
from tests.torture.plan import CALL, Plan, random_plan
from tests.torture.world import World


class Model:
    """Which tasks were asked for: those at first, those added and not deleted."""

    def __init__(self, world: World, numbers: list[int]) -> None:
        self.world = world
        self.notes = world.root / "notes"
        self.notes.touch()
        self.asked = set(numbers)
        self.next = max(numbers) + 1

    def edit(self) -> None:
        """`pegasus lock` with a scripted editor."""
        seed = self.world.rng.randrange(1 << 30)
        words = [sys.executable, "-m", editor.__name__, str(self.notes), str(seed), str(self.next)]
        self.next += editor.MOST
        before = self.notes.stat().st_size
        done = self.world.pegasus("lock", "--editor", shlex.join(words))
        assert done.returncode == 0, f"pegasus lock: {done.stderr}"
        for line in self.notes.read_text()[before:].splitlines():
            verb, number = line.split()
            self.asked.add(int(number)) if verb == "add" else self.asked.remove(int(number))

    def append(self) -> None:
        """`echo '- ...' >> queue.yaml`, some times."""
        for _ in range(self.world.rng.randint(1, 20)):
            with self.world.queue.open("ab", buffering=0) as queue:
                queue.write(f"- n={self.next}; {CALL}\n".encode())
            self.asked.add(self.next)
            self.next += 1
            if self.world.rng.random() < 0.3:
                time.sleep(self.world.rng.uniform(0, 0.02))


def test_edits_and_appends_while_popping(new_world: NewWorld, rng: random.Random) -> None:
    steps = sized(6, 60, 5000)
    everything = random_plan(rng, 100 + 25 * steps, 0.05)
    order = everything.order[:60]
    text = "".join(f"- n={n}; {CALL}\n" for n in order)
    world = new_world(everything, rng, nodes=2, subnodes=5)
    world.queue.write_text(text)
    model = Model(world, order)
    controller = world.start("--daemon")
    counts = dict.fromkeys(["edit", "append", "kill"], 0)
    for _ in range(steps):
        step = rng.choice(["edit", "edit", "append", "append", "append", "kill"])
        counts[step] += 1
        if step == "kill":
            controller.kill()
            controller = world.start("--daemon")
        else:
            getattr(model, step)()
        if rng.random() < 0.5:
            world.wait_for_starts(world.began() + rng.randint(0, 4), controller, 1)
        assert controller.ended is None, f"exit code {controller.ended}: {controller.text[-3000:]}"
    controller.kill()
    world.finish()
    for home in world.homes.values():
        with suppress(FileNotFoundError):
            assert_no_deleted(home / "began", model.asked)
    wanted = Plan({n: everything.tasks[n] for n in sorted(model.asked)}, "", ())
    text = world.queue.read_text()
    assert set(text.splitlines()) <= {"", "# somebody was here"}, text
    world.queue.write_text("")
    print(f"{counts}: {judge(world, wanted)}")


def assert_no_deleted(began: Path, asked: set[int]) -> None:
    started = {int(line.split()[1]) for line in began.read_text().splitlines()}
    assert started <= asked, f"tasks that the user had deleted were started: {sorted(started - asked)}"
