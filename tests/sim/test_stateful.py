"""The same world, where Hypothesis chooses what goes wrong and when, and shrinks a failing story to a short one."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pegasus_py.core.state import check
from tests.sim.faults import FAULTS, Fault
from tests.sim.world import World

EXAMPLES = int(os.environ.get("PEGASUS_SIM_EXAMPLES", "100"))


class Life(RuleBasedStateMachine):
    """One world, from its first entry to the end of its last job."""

    world: World | None = None

    @initialize(seed=st.integers(0, 1000))
    def begin(self, seed: int) -> None:
        self.world = World(seed, calm_from=1e9)
        self.world.rate = 0.0
        self.world.begin()

    @precondition(lambda self: self.world is not None)
    @rule(fault=st.sampled_from(FAULTS))
    def strike(self, fault: Fault) -> None:
        assert self.world is not None
        self.world.strike(fault)

    @precondition(lambda self: self.world is not None)
    @rule(seconds=st.sampled_from((0.0, 0.01, 0.1, 1.0, 5.0, 30.0)))
    def time_passes(self, seconds: float) -> None:
        assert self.world is not None
        self.world.now += 1e-6
        self.world.go_on(self.world.now + seconds)

    @invariant()
    def holds(self) -> None:
        for controller in self.world.controllers if self.world is not None else ():
            check(controller.state)

    def teardown(self) -> None:
        if self.world is not None:
            self.world.calm_from = self.world.now
            self.world.finish()


TestLife: Any = Life.TestCase
TestLife.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize="PEGASUS_SIM_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
TestLife = pytest.mark.timeout(120 + EXAMPLES)(TestLife)
