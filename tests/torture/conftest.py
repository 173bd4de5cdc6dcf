"""Sizes, seeds and worlds for the torture tests.

PEGASUS_TORTURE: unset is a taste of a few seconds each, "ci" a few minutes in all, "full" hours. PEGASUS_SEED replays
the one random run of that seed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.sshd import find_sshd
from tests.torture.plan import Plan
from tests.torture.world import World

T = TypeVar("T")
SIZE = os.environ.get("PEGASUS_TORTURE", "")
LIMITS = {"": 180, "ci": 900, "full": 6 * 3600}
"""Seconds that one test may take before it is taken for hung."""

NewWorld = Callable[..., World]


def sized(taste: T, ci: T, full: T) -> T:
    """The one of three sizes that PEGASUS_TORTURE asks for."""
    assert SIZE in LIMITS, f"PEGASUS_TORTURE={SIZE!r} is none of ci and full"
    return {"": taste, "ci": ci, "full": full}[SIZE]


def seeds(taste: int, ci: int, full: int) -> list[int]:
    """As many seeds for random runs, others each time; or the one in PEGASUS_SEED."""
    if given := os.environ.get("PEGASUS_SEED"):
        return [int(given)]
    return [random.SystemRandom().randrange(1 << 32) for _ in range(sized(taste, ci, full))]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/torture/" in item.path.as_posix():
            item.add_marker(pytest.mark.torture)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(LIMITS.get(SIZE, 180)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    seed = getattr(item, "torture_seed", None)
    if seed is not None and report.failed:
        size = f"PEGASUS_TORTURE={SIZE} " if SIZE else ""
        report.sections.append(("replay", f"PEGASUS_SEED={seed} {size}pytest '{item.nodeid}'"))
    return report


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """The source of all choices of a random run; its seed is printed, and with it the command that replays."""
    [seed] = seeds(1, 1, 1)
    request.node.torture_seed = seed
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[NewWorld]:
    """Make worlds that end with the test: new_world(plan, rng, nodes=2, subnodes=6)."""
    if find_sshd() is None:
        pytest.skip("needs OpenSSH's server (sshd), which is not installed here")
    with ExitStack() as stack:
        count = 0

        def make(plan: Plan, rng: random.Random | None = None, **options: Any) -> World:
            nonlocal count
            count += 1
            return stack.enter_context(World(tmp_path / f"world-{count}", plan, rng, **options))

        yield make
