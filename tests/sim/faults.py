"""What can go wrong, and what users do meanwhile. Each takes a host and the controller that lives, if one does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pegasus_py.core.moves import CancelAsked, StopAsked, StopLevel
from tests.sim.controller import Controller
from tests.sim.node import Node

if TYPE_CHECKING:
    from tests.sim.world import World


def cut(world: World, node: Node, controller: Controller | None) -> None:
    if controller is not None:
        link = world.rng.choice(list(controller.links.values()))
        controller.when_awake(link.cut)


def go_away(world: World, node: Node, controller: Controller | None) -> None:
    """The network to one host is down for a while."""
    node.away_until = world.now + world.rng.uniform(1, 60)
    world.cut_host(node)


def reboot(world: World, node: Node, controller: Controller | None) -> None:
    node.reboot()
    world.after(world.rng.uniform(0.5, 30), lambda: world.cut_host(node))


def kill_runner(world: World, node: Node, controller: Controller | None) -> None:
    node.kill_runner()
    world.after(world.rng.uniform(0, 1), lambda: world.cut_host(node))


def fill_node(world: World, node: Node, controller: Controller | None) -> None:
    node.full_until = world.now + world.rng.uniform(1, 30)


def fill_disk(world: World, node: Node, controller: Controller | None) -> None:
    world.disk.full_until = world.now + world.rng.uniform(0.5, 10)


def append(world: World, node: Node, controller: Controller | None) -> None:
    """The user adds an entry."""
    world.append()


def edit(world: World, node: Node, controller: Controller | None) -> None:
    """The user holds the queue's lock, and may leave the file in a state that cannot be read."""
    world.disk.locked_until = world.now + world.rng.uniform(0.1, 10)
    world.disk.bad_until = world.now + world.rng.choice((0, 20))


def kill(world: World, node: Node, controller: Controller | None) -> None:
    if controller is not None:
        world.kill(controller)


def pause(world: World, node: Node, controller: Controller | None) -> None:
    """The controller is stopped for a while; on a bad file system its lock is lost, and another one starts."""
    if controller is not None and controller.pause(world.rng.uniform(0.1, 60)) and world.chance(0.5):
        world.start()


def stop(world: World, node: Node, controller: Controller | None) -> None:
    if controller is not None:
        level = world.rng.choice(list(StopLevel))

        def acknowledged() -> None:
            controller.stop_acknowledged = True

        controller.when_awake(lambda: controller.fact(StopAsked(level), acknowledged))


def cancel(world: World, node: Node, controller: Controller | None) -> None:
    """One job, or all."""
    if controller is not None and world.disk.jobs:
        every = world.chance(0.3)
        jobs = None if every else frozenset({world.rng.choice(list(world.disk.jobs))})
        meant = set(world.disk.jobs) if jobs is None else jobs

        def acknowledged() -> None:
            controller.cancelled |= meant

        controller.when_awake(lambda: controller.fact(CancelAsked(jobs), acknowledged))


Fault = Callable[["World", Node, Controller | None], None]

FAULTS: tuple[Fault, ...] = (
    cut,
    go_away,
    reboot,
    kill_runner,
    fill_node,
    fill_disk,
    append,
    edit,
    kill,
    pause,
    stop,
    cancel,
)
OFTEN: tuple[Fault, ...] = (*FAULTS, cut, cut, go_away, go_away, append, cancel, cancel)
"""The same, some of them more likely."""
