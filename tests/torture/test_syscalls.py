"""The controller is killed at, or fails at, its N-th call of the system, by `strace --inject`: every N in the end.

A point is (files, call, N): the N-th such call on one of these files, or on any. strace counts for each thread, so a
point is met by the thread that gets there first; the targets are chosen so that each thread has its turn.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.torture.conftest import SIZE, NewWorld, sized
from tests.torture.oracle import evidence, judge, look
from tests.torture.plan import Plan, Task, random_plan
from tests.torture.world import Controller, World

STRACE = shutil.which("strace")
JOBS = 10
HALF = "# --- the second half\n"
CHANGES = "write,pwrite64,fsync,fdatasync,ftruncate,rename,unlink,openat,mkdir,fchmod"
"""The calls with which a file may become another."""


@dataclass(frozen=True, slots=True)
class Target:
    """A set of files (below the queue's directory; none: whatever it is) and calls. `fresh`: the queue's first run."""

    name: str
    files: tuple[str, ...]
    calls: str = CHANGES
    fresh: bool = False


_STATE = ".pegasus/queue.yaml/"
_LEDGER = tuple(f"{_STATE}ledger.db{each}" for each in ("", "-journal", "-wal", "-shm"))
_LOGS = tuple(f"{_STATE}logs/{n}.1.log" for n in range(1, 2 * JOBS))
TARGETS = [
    Target("ledger", _LEDGER),
    Target("new-ledger", _LEDGER, fresh=True),
    Target("queue", ("queue.yaml", ".queue.yaml.pegasus-new")),
    Target("consumed", ("consumed.yaml",), fresh=True),
    Target("logs", _LOGS),
    Target(
        "claim",
        tuple(_STATE + name for name in ("", "popped", "controller.json", "controller.lock")),
        fresh=True,
    ),
    Target("wire", (), "sendto"),
    Target("all-writes", (), "write,pwrite64"),
    Target("all-names", (), "rename,unlink,mkdir"),
]
STORED = [target for target in TARGETS if target.files]


def injection(world: World, target: Target, rule: str = "", out: Path | None = None) -> list[str]:
    """The command line of strace that puts `rule` ("fsync:signal=SIGKILL:when=3") on the target's files."""
    assert STRACE
    words = [STRACE, "-f", "-qqq", "-o", str(out or "/dev/null"), "-e", "signal=none"]
    words += ["-e", f"trace={rule.partition(':')[0] or target.calls}", *["-e", f"inject={rule}"] * bool(rule)]
    for name in target.files:
        words += ["-P", str(world.dir / name).rstrip("/")]
    return words


def prepare(world: World, target: Target, plan: Plan) -> None:
    """A queue of JOBS tasks; two have been run before, unless the target wants it fresh."""
    world.reset(plan)
    if not target.fresh:
        before, after = plan.text.split(HALF)
        world.queue.write_text(before)
        world.finish()
        with world.queue.open("a") as queue:
            queue.write(HALF + after)


def small_plan(rng: random.Random) -> Plan:
    """Ten short tasks in every form of entry, two of them before a mark in the text."""
    few, rest = random_plan(rng, 2, 0.05), random_plan(rng, JOBS - 2, 0.05, first=10)
    tasks = {
        n: Task(n, t.seconds, t.status, min(t.lines, 40)) for n, t in {**few.tasks, **rest.tasks}.items()
    }
    comments = (*few.comments, *[c for c in rest.comments if c not in few.comments], HALF.strip())
    text = few.text + HALF + "".join(rest.text.splitlines(keepends=True)[1:])
    return Plan(tasks, text, comments)


def all_points(world: World, target: Target, plan: Plan) -> list[tuple[str, int]]:
    """Every (call, N) in a run in which nothing goes wrong. The kernel's order of threads makes them vary a little."""
    prepare(world, target, plan)
    out = world.root / f"trace.{target.name}"
    controller = world.start(wrapper=injection(world, target, out=out))
    assert controller.wait() in (0, 1), controller.text
    judge(world)
    found = Counter(re.findall(r"^(\d+) +(\w+)\(", out.read_text(errors="replace"), re.MULTILINE))
    most: Counter[str] = Counter()
    for (_thread, call), times in found.items():
        most[call] = max(most[call], times)
    return [(call, n) for call, times in sorted(most.items()) for n in range(1, times + 1)]


def end(controller: Controller, is_lasting: bool) -> int:
    """Its exit code; when nothing will get better, ask it to finish, and then to leave."""
    # Not before it listens, which under strace may take some seconds: it would just be gone.
    deadline = time.monotonic() + 60
    while is_lasting and not controller.text and controller.ended is None and time.monotonic() < deadline:
        time.sleep(0.05)
    for patience, sig in ((3, signal.SIGTERM), (10, signal.SIGHUP)) if is_lasting else ():
        with suppress(subprocess.TimeoutExpired):
            return controller.process.wait(patience)
        controller.signal(sig)
    return controller.wait(60)


def some(rng: random.Random, points: list[tuple[str, int]], wanted: int | None) -> list[tuple[str, int]]:
    """All of them, or `wanted` that are spread out evenly from a random place."""
    if wanted is None or wanted >= len(points):
        return points
    step = len(points) / wanted
    return [points[int((rng.random() + k) * step)] for k in range(wanted)]


@pytest.fixture
def world(new_world: NewWorld, rng: random.Random) -> World:
    if STRACE is None:
        pytest.skip("needs strace, which is not installed here")
    # No localhost: strace would follow the controller's children there, and do to jobs what is meant for it.
    return new_world(random_plan(rng, 1), rng, nodes=1, subnodes=3, local=False)


@pytest.mark.parametrize("target", sized(TARGETS[2:3], TARGETS, TARGETS), ids=lambda target: target.name)
def test_killed_at(world: World, target: Target) -> None:
    plan = small_plan(world.rng)
    points = all_points(world, target, plan)
    chosen = some(world.rng, points, sized(1, 3, None))
    killed = 0
    for call, most in chosen:
        # Calls are grouped differently in each run: where this one has fewer than N, an earlier call will do.
        code, n = 0, most
        while code != -signal.SIGKILL and n:
            code = _killed_at(world, target, plan, f"{call}:signal=SIGKILL:when={n}")
            n //= 2
        killed += code == -signal.SIGKILL
    print(f"{target.name}: killed at {killed} of {len(points)} calls")
    assert killed == len(chosen), "the kills did not happen"


def _killed_at(world: World, target: Target, plan: Plan, rule: str) -> int:
    """The exit code of a run under `rule`; what it left has been finished and judged."""
    prepare(world, target, plan)
    controller = world.start(wrapper=injection(world, target, rule))
    code = controller.wait()
    try:
        assert code in (0, 1, -signal.SIGKILL), f"exit code {code}; it said:\n{controller.text[-3000:]}"
        look(world)
        world.finish(within=120)
        judge(world)
    except AssertionError as error:
        raise AssertionError(f"{rule} on {target.name} ({evidence(world)}): {error}") from None
    return code


@pytest.mark.parametrize("fault", sized(["ENOSPC"], ["EIO", "ENOSPC"], ["EIO", "ENOSPC", "EDQUOT", "EROFS"]))
@pytest.mark.parametrize("target", sized(STORED[:1], STORED, STORED), ids=lambda target: target.name)
def test_fails_at(world: World, target: Target, fault: str) -> None:
    """Once, or from then on. The run says so and ends by itself or when it is told to; the next one mends it."""
    plan = small_plan(world.rng)
    points = all_points(world, target, plan)
    chosen = some(world.rng, points, sized(1, 2, None))
    for call, n in chosen:
        for ever in ("", "+") if SIZE == "full" else (world.rng.choice(["", "+"]),):
            prepare(world, target, plan)
            controller = world.start(wrapper=injection(world, target, f"{call}:error={fault}:when={n}{ever}"))
            try:
                code = end(controller, bool(ever))
                assert code in (0, 1, 5, 6), f"exit code {code}; it said:\n{controller.text[-3000:]}"
                assert "Traceback" not in controller.text, controller.text[-3000:]
                look(world)
                world.finish(within=120)
                judge(world)
            except AssertionError as error:
                where = f"{fault} at {call} {n}{ever} on {target.name} ({evidence(world)})"
                raise AssertionError(f"{where}: {error}") from None
    print(f"{target.name}: {fault} at {len(chosen)} of {len(points)} calls")
