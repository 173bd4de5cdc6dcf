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

FAULTS = ("RST", "FIN", "stall", "deaf", "dumb", "slow")


def cut(rng: random.Random, proxy: Proxy, fault: str, controller: Controller) -> None:
    """Do it to all connections of a node, and put it right again."""
    match fault:
        case "RST" | "FIN":
            proxy.cut(reset=fault == "RST")
        case "slow":
            # The cut hits a message in its middle.
            proxy.block, before = 1, proxy.block
            time.sleep(rng.uniform(0, 0.3))
            proxy.cut(reset=rng.random() < 0.5)
            proxy.block = before
        case _:
            proxy.stall(onward=fault != "deaf", back=fault != "dumb")
            deadline = time.monotonic() + rng.choice([0.3, DETECTED_WITHIN + rng.uniform(0, 2)])
            while time.monotonic() < deadline and controller.ended is None:
                time.sleep(0.05)
            proxy.flow()


def cut_at_random(rng: random.Random, net: Net, controller: Controller, cuts: int) -> Counter[str]:
    """Spoil a connection at some moment after another, while connecting too, until the run or `cuts` is over."""
    done: Counter[str] = Counter()
    while done.total() < cuts and controller.ended is None:
        time.sleep(rng.choice([0.0, rng.uniform(0, 0.1), rng.uniform(0, 0.6)]))
        proxies = net.up()
        if not proxies:
            continue
        # Often while the script is on its way, or the first questions are.
        fault = rng.choice(FAULTS)
        cut(rng, rng.choice(proxies), fault, controller)
        done[fault] += 1
    return done


@pytest.mark.parametrize("mode", ["q", "b"])
def test_cuts_at_random(new_world: NewWorld, rng: random.Random, mode: str) -> None:
    cuts = sized(4, 50 if mode == "q" else 15, 2000)
    jobs = sized(16, 140, 5000) if mode == "q" else sized(2, 10, 300)
    world = new_world(
        noisy_plan(rng, jobs, sized(1.0, 3.0, 5.0)), rng, nodes=3, subnodes=6, local=False, mode=mode
    )
    make_noisy(world)
    with Net(world) as net:
        controller = world.start()
        done = cut_at_random(rng, net, controller, cuts)
        begin = time.monotonic()
        code = controller.wait()
        assert code in (0, 1), controller.text[-4000:]
        accepted = sum(proxy.accepted for proxy in net.proxies.values())
        print(
            f"{done.total()} cuts {dict(done)}, {accepted} connections, the rest took {time.monotonic() - begin:.1f} s"
        )
        print(judge(world))


@pytest.mark.parametrize("fault", ["stall", "deaf", "dumb"])
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
