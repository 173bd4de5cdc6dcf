"""Many seeds must keep all promises; PEGASUS_SIM_SEEDS says how many (2,000), PEGASUS_SIM_FROM where to start."""

from __future__ import annotations

import os

import pytest

from pegasus_py.core import life, scheduler
from pegasus_py.core.moves import Took
from tests.sim.__main__ import replay
from tests.sim.oracle import Violation
from tests.sim.world import World

SEEDS = int(os.environ.get("PEGASUS_SIM_SEEDS", "2000"))
FIRST = int(os.environ.get("PEGASUS_SIM_FROM", "0"))
PARTS = 10


@pytest.mark.timeout(120 + SEEDS // 5)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_seed_keeps_the_promises(part: int) -> None:
    for seed in range(FIRST + part, FIRST + SEEDS, PARTS):
        try:
            World(seed).run()
        except Exception as error:
            raise AssertionError(f"replay with: {replay(seed)}") from error


def test_a_seed_replays_exactly(capsys: pytest.CaptureFixture[str]) -> None:
    stories = []
    for _ in range(2):
        World(7, verbose=True).run()
        stories.append(capsys.readouterr().out)
    assert stories[0] == stories[1]
    assert "Took" in stories[0]


def test_the_seeds_reach_what_matters() -> None:
    """Seen over some seeds: retries, takeovers, losses, cancels, stops, fences, set-asides; no seed is idle."""
    seen: set[str] = set()
    for seed in range(150):
        world = World(seed)
        world.say = lambda text: seen.add(text.split(" -> ")[-1].split("(")[0])  # type: ignore[method-assign]
        assert world.run().steps > 5
    assert {
        "Take",
        "Begin",
        "Send",
        "Attach",
        "Ask",
        "Fence",
        "Kill",
        "Record",
        "Drop",
        "SetAside",
        "Finish",
    } <= seen


def forget_markers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "_keep", lambda live, seat: False)


def forget_ghosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "_haunt", lambda state, live, orders: None)


def send_blindly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "ask", lambda live, orders: None)


def drop_what_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def took(state: object, fact: Took, now: float, orders: object) -> None:
        scheduler._took(state, Took(fact.attempts[1:], fact.view), now, orders)  # type: ignore[arg-type]

    monkeypatch.setitem(scheduler._HANDLERS, Took, took)


@pytest.mark.parametrize("sabotage", [forget_markers, forget_ghosts, send_blindly, drop_what_was_taken])
def test_a_broken_scheduler_is_found(monkeypatch: pytest.MonkeyPatch, sabotage: object) -> None:
    """The simulation itself can fail: with one thing left out of the scheduler, some seed soon says so."""
    assert callable(sabotage)
    sabotage(monkeypatch)
    with pytest.raises((Violation, AssertionError)):
        for seed in range(1500):
            World(seed).run()
