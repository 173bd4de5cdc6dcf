"""The disk of the queue is full, or read-only: nothing new starts, nothing is lost. G10 of docs/guarantees.md."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.support import procs
from tests.torture.conftest import NewWorld, sized
from tests.torture.oracle import judge, look
from tests.torture.plan import even_plan, random_plan
from tests.torture.world import World

SmallDisk = Callable[[int], Path]


def mount(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Make a disk of so many KiB, at the path that is returned."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    mounted: list[Path] = []

    def make(kib: int) -> Path:
        path = tmp_path / f"disk-{len(mounted)}"
        path.mkdir()
        done = mount("-t", "tmpfs", "-o", f"size={kib}k", "pegasus-test", str(path))
        if done.returncode:
            pytest.skip(f"no mounting here: {done.stderr.strip()}")
        mounted.append(path)
        return path

    yield make
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk: Path) -> None:
    """Leave not one block free."""
    with suppress(OSError), (disk / "lost+found").open("ab", buffering=0) as file:
        while True:
            file.write(b"x" * 65536)
    with suppress(OSError), (disk / "lost+found").open("ab", buffering=0) as file:
        while True:
            file.write(b"x")


def free(disk: Path) -> None:
    (disk / "lost+found").unlink(missing_ok=True)


def open_attempts(world: World) -> int:
    with closing(sqlite3.connect(f"file:{world.state / 'ledger.db'}?mode=ro", uri=True)) as db:
        [(count,)] = db.execute("SELECT count(*) FROM attempt WHERE state IS NULL").fetchall()
    return int(count)


def test_full_disk_stops_starts_and_collects_results(
    new_world: NewWorld, rng: random.Random, small_disk: SmallDisk
) -> None:
    disk = small_disk(6000)
    # The jobs write nothing: of output there is no room to keep.
    plan = even_plan(sized(120, 300, 2000), 0.1, lines=0)
    world = new_world(plan, rng, nodes=1, subnodes=4, queue_dir=disk)
    controller = world.start()
    world.wait_for_starts(20, controller)
    fill(disk)
    procs.wait_until(
        lambda: "nothing new starts" in controller.text, "the run to say that the disk is full", 60
    )
    procs.wait_until(lambda: open_attempts(world) == 0, "the results of what runs", 60)
    began = world.began()
    assert began < len(plan.tasks), "all jobs had started before the disk was full"
    time.sleep(2.5)  # longer than a failed write waits to be tried again
    assert world.began() == began
    assert controller.ended is None
    look(world)
    free(disk)
    assert controller.wait(120) == 0, controller.text
    print(f"stopped at {began} of {len(plan.tasks)}: {judge(world)}")


def test_disk_that_fills_and_frees_at_random(
    new_world: NewWorld, rng: random.Random, small_disk: SmallDisk
) -> None:
    """With output, and with a controller that is killed now and then."""
    disk = small_disk(9000)
    world = new_world(random_plan(rng, sized(60, 300, 3000), 0.1), rng, nodes=2, subnodes=5, queue_dir=disk)
    controller = world.start()
    fills = 0
    while fills < sized(2, 15, 400):
        world.wait_for_starts(world.began() + rng.randint(1, 12), controller, 5)
        fill(disk)
        fills += 1
        time.sleep(rng.uniform(0, 2.5))
        if rng.random() < 0.25:
            controller.kill()
        free(disk)
        if controller.ended is not None:
            assert controller.ended in (0, 1, 5, -signal.SIGKILL), (
                f"{controller.ended}: {controller.text[-3000:]}"
            )
            assert "Traceback" not in controller.text, controller.text[-3000:]
            if controller.ended in (0, 1) and not look(world):
                break
            controller = world.start()
    assert controller.wait(120) in (0, 1, 5), controller.text[-3000:]
    world.finish()
    print(f"filled {fills} times: {judge(world)}")


def test_output_that_finds_no_room(new_world: NewWorld, rng: random.Random, small_disk: SmallDisk) -> None:
    """It stays on its node, the exit code tells, and the next run takes it in."""
    disk = small_disk(3000)
    # The ledger needs about two megabytes, the output nearly another two.
    world = new_world(even_plan(1, 0.1, lines=60_000), rng, nodes=1, subnodes=1, queue_dir=disk, local=False)
    controller = world.start()
    assert controller.wait(120) == 5, controller.text
    assert "stays on its node" in controller.text and "Traceback" not in controller.text, controller.text
    assert "1 succeeded" in controller.text, controller.text
    assert mount("-o", "remount,size=20000k", str(disk)).returncode == 0
    controller = world.start()
    assert controller.wait(60) == 0, controller.text
    judge(world)


def test_start_on_a_full_disk(new_world: NewWorld, rng: random.Random, small_disk: SmallDisk) -> None:
    """A queue that never ran, and one whose controller was killed: it says so, and later loses nothing."""
    disk = small_disk(6000)
    world = new_world(random_plan(rng, 40, 0.1), rng, nodes=1, subnodes=4, queue_dir=disk)
    for starts in (0, 8):
        if starts:
            controller = world.start()
            world.wait_for_starts(starts, controller)
            controller.kill()
        fill(disk)
        controller = world.start()
        with suppress(subprocess.TimeoutExpired):
            controller.process.wait(6)
        controller.kill()
        assert controller.ended in (5, -signal.SIGKILL), f"{controller.ended}: {controller.text}"
        assert "Traceback" not in controller.text and "disk" in controller.text, controller.text
        free(disk)
        look(world)
    world.finish()
    judge(world)


def test_read_only_directory(new_world: NewWorld, rng: random.Random, small_disk: SmallDisk) -> None:
    """The same with a file system that has become read-only."""
    disk = small_disk(20_000)
    world = new_world(random_plan(rng, 40, 0.1), rng, nodes=1, subnodes=4, queue_dir=disk)
    for starts in (0, 8):
        if starts:
            controller = world.start()
            world.wait_for_starts(starts, controller)
            controller.kill()
        assert mount("-o", "remount,ro", str(disk)).returncode == 0
        controller = world.start()
        assert controller.wait(30) == 5, f"{controller.ended}: {controller.text}"
        assert "ead-only" in controller.text and "Traceback" not in controller.text, controller.text
        assert mount("-o", "remount,rw", str(disk)).returncode == 0
        look(world)
    world.finish()
    judge(world)
