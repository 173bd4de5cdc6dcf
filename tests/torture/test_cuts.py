"""Connections end, or go silent, at any moment: G2 to G4 of docs/guarantees.md, through proxies before real nodes."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from tests.support.proxy import Proxy
from tests.torture.conftest import NewWorld, sized
from tests.torture.net import DETECTED_WITHIN, Net, NoisyTask, make_noisy, noisy_plan, said
from tests.torture.oracle import judge
from tests.torture.plan import CALL, Plan
from tests.torture.world import Controller

FAULTS = ("RST", "FIN", "slow", "stall", "deaf", "dumb")


class Cutter:
    """Spoils connections at some moment after another, while they are made too; several nodes at a time."""

    def __init__(self, rng: random.Random, net: Net) -> None:
        self.rng = rng
        self.net = net
        self.done: Counter[str] = Counter()
        self._silent: dict[Proxy, float] = {}

    def cut(self, cuts: int, controller: Controller) -> None:
        """Go on until `cuts` have been made or the run is over."""
        while self.done.total() < cuts and controller.ended is None:
            time.sleep(self.rng.choice([0.0, self.rng.uniform(0, 0.1), self.rng.uniform(0, 0.8)]))
            self._mend(time.monotonic())
            proxies = [proxy for proxy in self.net.up() if proxy not in self._silent]
            if proxies:
                self._spoil(self.rng.choice(proxies), self.rng.choice(FAULTS))
        while self._silent and controller.ended is None:
            self._mend(time.monotonic())
            time.sleep(0.02)
        self.net.mend()

    def _spoil(self, proxy: Proxy, fault: str) -> None:
        self.done[fault] += 1
        match fault:
            case "RST" | "FIN":
                proxy.cut(reset=fault == "RST")
            case "slow":
                # The cut hits a message in its middle.
                proxy.block = 1
                time.sleep(self.rng.uniform(0, 0.3))
                proxy.cut(reset=self.rng.random() < 0.5)
                proxy.block = 65536
            case _:
                proxy.stall(onward=fault != "deaf", back=fault != "dumb")
                seconds = self.rng.choice([0.3, DETECTED_WITHIN + self.rng.uniform(0, 2)])
                self._silent[proxy] = time.monotonic() + seconds

    def _mend(self, now: float) -> None:
        for proxy in [proxy for proxy, until in self._silent.items() if until <= now]:
            del self._silent[proxy]
            proxy.flow()


@pytest.mark.parametrize("mode", ["q", "b"])
def test_cuts_at_random(new_world: NewWorld, rng: random.Random, mode: str) -> None:
    cuts = sized(4, 45 if mode == "q" else 15, 2000)
    jobs = sized(16, 120, 5000) if mode == "q" else sized(2, 10, 300)
    world = new_world(
        noisy_plan(rng, jobs, sized(1.0, 3.0, 5.0)), rng, nodes=3, subnodes=6, local=False, mode=mode
    )
    make_noisy(world)
    with Net(world) as net:
        controller, cutter = world.start(), Cutter(rng, net)
        if mode == "b":
            # A node that is not there when the first command starts takes no part.
            world.wait_for_starts(len(world.subnodes), controller)
        cutter.cut(cuts, controller)
        begin = time.monotonic()
        code = controller.wait()
        assert code in (0, 1), controller.text[-4000:]
        print(
            f"{cutter.done.total()} cuts {dict(cutter.done)}, the rest took {time.monotonic() - begin:.1f} s"
        )
        if world.spools():
            # A node that was out of reach when the run ended is tidied up by the next.
            world.finish()
        print(judge(world))


SILENCES = ["stall", "deaf", "dumb"]


@pytest.mark.parametrize("fault", sized(SILENCES[:1], SILENCES, SILENCES * 20))
def test_silence_is_noticed_and_the_job_goes_on(new_world: NewWorld, fault: str) -> None:
    """A job writes all the time; its node falls silent. That is said, nothing is lost, and the job is not touched."""
    pieces = 60 if fault == "stall" else 30
    tasks = {1: NoisyTask(1, 0.0, 0, 8), 2: NoisyTask(2, 0.1, 3, pieces)}
    plan = Plan(dict(tasks), f"- n=2; {CALL}\n- n=1; {CALL}\n", ())
    world = new_world(plan, nodes=1, subnodes=1, local=False)
    make_noisy(world)
    with Net(world) as net:
        controller = world.start()
        world.wait_for_starts(1, controller)
        said(controller, "2 3")
        net["node-1"].stall(onward=fault != "deaf", back=fault != "dumb")
        took = said(controller, "connection lost: the node no longer answers")
        net["node-1"].flow()
        said(controller, "connected again")
        assert controller.wait() == 1
        print(f"{fault}: noticed after {took:.1f} s (promised: {DETECTED_WITHIN} s)")
    assert controller.text.count("connection lost") == 1
    assert judge(world).starts == 2
