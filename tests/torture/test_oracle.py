"""The judge itself: each kind of broken promise, made by hand, is found."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.torture.conftest import NewWorld
from tests.torture.oracle import judge, look
from tests.torture.plan import numbers_in, random_plan
from tests.torture.world import World


def in_ledger(statement: str) -> Callable[[World], None]:
    def spoil(world: World) -> None:
        with closing(sqlite3.connect(world.state / "ledger.db")) as db, db:
            assert db.execute(statement).rowcount == 1

    return spoil


def began(world: World) -> Path:
    return next(home / "began" for home in world.homes.values() if (home / "began").exists())


def start_twice(world: World) -> None:
    with began(world).open("a") as file:
        file.write(began(world).read_text().splitlines()[0] + "\n")


def forget_a_start(world: World) -> None:
    began(world).write_text("".join(began(world).read_text().splitlines(keepends=True)[1:]))


def start_as_another_job(world: World) -> None:
    attempt, number, subnode = began(world).read_text().splitlines()[0].split()
    with began(world).open("a") as file:
        file.write(f"{99}.1.{attempt.split('.')[2]} {number} {subnode}\n")


def change_a_byte(world: World) -> None:
    log = max((world.state / "logs").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)


def repeat_output(world: World) -> None:
    log = max((world.state / "logs").iterdir(), key=lambda path: path.stat().st_size)
    log.write_bytes(log.read_bytes() * 2)


def consume_twice(world: World) -> None:
    world.consumed.write_text(world.consumed.read_text() * 2)


def consume_never(world: World) -> None:
    world.consumed.write_text("")


def bring_back(world: World) -> None:
    with world.queue.open("a") as queue:
        queue.write("- n=3; x\n")


def lose_a_comment(world: World) -> None:
    world.queue.write_text("")


def leave_a_file(world: World) -> None:
    spool = world.home / ".local/state/pegasus/0123456789abcdef"
    spool.mkdir(parents=True)
    (spool / "1.1.job").touch()


SPOILED = [
    (start_twice, "was started 2 times"),
    (forget_a_start, "was never started"),
    (start_as_another_job, "several jobs"),
    (in_ledger("UPDATE attempt SET status = 3 WHERE job = 2"), "with status 3"),
    (in_ledger("UPDATE job SET state = 'lost' WHERE id = 2"), "is lost"),
    (in_ledger("DELETE FROM job WHERE id = 2"), "is 0 jobs in the ledger"),
    (change_a_byte, "they differ from byte"),
    (repeat_output, "they differ from byte"),
    (consume_twice, "2 times in consumed.yaml"),
    (consume_never, "0 times in consumed.yaml"),
    (bring_back, "1 times in queue.yaml"),
    (lose_a_comment, "comments"),
    (leave_a_file, "left in spools"),
]


def test_every_broken_promise_is_found(new_world: NewWorld, rng: random.Random) -> None:
    world = new_world(random_plan(rng, 25, 0.02), rng, nodes=1, subnodes=4)
    world.finish()
    judge(world)
    good = world.root / "good"
    shutil.copytree(world.root, good, ignore=shutil.ignore_patterns("good", "nodes", "plan"))
    for spoil, words in SPOILED:
        kept = {path: path.read_bytes() for home in world.homes.values() for path in home.glob("began")}
        spoil(world)
        with pytest.raises(AssertionError, match=words):
            judge(world)
        shutil.rmtree(world.dir)
        shutil.copytree(good / "queue", world.dir)
        shutil.rmtree(world.home / ".local", ignore_errors=True)
        for path, data in kept.items():
            path.write_bytes(data)
        judge(world)


def test_a_torn_queue_is_found(new_world: NewWorld, rng: random.Random) -> None:
    world = new_world(random_plan(rng, 30), rng, nodes=1, subnodes=2)
    assert look(world) == world.plan.order == numbers_in(world.plan.text)
    world.queue.write_text("- n=30; x\n")
    assert look(world) == [30]
    for torn in ("- n=29; x\n", "- n=3; x\n- n=30; x\n", "- command: [\n"):
        world.queue.write_text(torn)
        with pytest.raises(AssertionError):
            look(world)
