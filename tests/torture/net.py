"""A network to be cruel to: a proxy before each node of a world; and tasks that say much, and long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from tests.support.procs import wait_until
from tests.support.proxy import Proxy
from tests.torture.plan import CALL, Plan, Task
from tests.torture.world import Controller, World

ALIVE_INTERVAL, ALIVE_COUNT = 1, 1
DETECTED_WITHIN = ALIVE_INTERVAL * (ALIVE_COUNT + 1) + 1.0
"""Seconds in which a silent network is to be noticed (docs/nodes.md)."""

SETTINGS = f"""\
Host *
  ServerAliveInterval {ALIVE_INTERVAL}
  ServerAliveCountMax {ALIVE_COUNT}
  ConnectTimeout 5
"""

NOISY_JOB = """\
printf '%s %s %s\\n' "$PEGASUS_ATTEMPT" "$n" "$PEGASUS_SUBNODE" >>"$HOME/began"
read -r _s _x _o <"{plan}/$n"
_k=0
while [ "$_k" -lt "$_o" ]; do
    case $n in
        *[13]) awk -v n="$n" -v k="$_k" 'BEGIN {{
            for (i = 0; i < 4000; i++) printf "%d %d %d %s\\n", n, k, i, "{padding}" }}' ;;
        *) printf '%s %s\\377\\000\\r\\n' "$n" "$_k" ;;
    esac
    [ "$_s" = 0.0 ] || sleep "$_s"
    _k=$((_k + 1))
done
exit "$_x"
"""
"""`_o` pieces of output with `_s` seconds after each: a line, or some 300 kB for numbers that end in 1 or 3."""

PADDING = "x" * 60


@dataclass(frozen=True, slots=True)
class NoisyTask(Task):
    """`lines` pieces of output with `seconds` after each."""

    @property
    def output(self) -> bytes:
        n = self.number
        if n % 10 in (1, 3):
            return b"".join(
                b"%d %d %d %s\n" % (n, k, i, PADDING.encode()) for k in range(self.lines) for i in range(4000)
            )
        return b"".join(b"%d %d\377\0\r\n" % (n, k) for k in range(self.lines))


def noisy_plan(rng: random.Random, count: int, longest: float = 3.0) -> Plan:
    """Tasks that write for up to `longest` seconds, a line or a large piece at a time; a fifth of them fail."""
    tasks: dict[int, Task] = {}
    for n in range(1, count + 1):
        pause = rng.choice([0.0, 0.0, 0.02, 0.1])
        most = 6 if n % 10 in (1, 3) else 100
        pieces = rng.randint(0, most if not pause else min(most, int(longest / pause)))
        tasks[n] = NoisyTask(n, pause, rng.choice([0, 0, 0, 0, rng.randint(1, 125)]), pieces)
    return Plan(tasks, "".join(f"- n={n}; {CALL}\n" for n in tasks), ())


def make_noisy(world: World) -> None:
    """Let the world's nodes do what a noisy plan asks for."""
    for home in world.homes.values():
        (home / "job").write_text(NOISY_JOB.format(plan=world.root / "plan", padding=PADDING))


class Net(ExitStack):
    """The proxies of a world by node name; its controllers go through them, with keepalives that notice soon."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.proxies = {
            server.name: self.enter_context(Proxy((server.address, server.port))) for server in world.farm
        }
        world.route({name: proxy.address for name, proxy in self.proxies.items()})
        config = world.home / ".ssh" / "config"
        config.write_text(config.read_text() + SETTINGS)

    def __getitem__(self, name: str) -> Proxy:
        return self.proxies[name]

    def up(self) -> list[Proxy]:
        """The proxies with connections."""
        return [proxy for proxy in self.proxies.values() if proxy.conversations()]

    def mend(self) -> None:
        for proxy in self.proxies.values():
            proxy.block = 65536
            proxy.delay = 0.0
            proxy.refuse(False)
            proxy.flow()


def said(controller: Controller, words: str, *, after: int = 0, within: float = 30.0) -> float:
    """Wait until the controller has printed `words` behind the first `after` characters; the seconds that it took."""
    return waited_for(
        lambda: words in controller.text[after:] or controller.ended is not None,
        lambda: f"{words!r} in what the controller says: {controller.text[after:][-3000:]}",
        within,
    )


def waited_for(true: Callable[[], object], what: Callable[[], str], within: float = 30.0) -> float:
    begin = time.monotonic()
    try:
        wait_until(true, "it", within)
    except AssertionError:
        raise AssertionError(f"waited {within} s in vain for {what()}") from None
    return time.monotonic() - begin
