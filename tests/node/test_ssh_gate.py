"""How many log in at once."""

from __future__ import annotations

import asyncio

from pegasus_py.node.sshgate import PER_HOST, Gates, pause_before


async def most_at_once(gates: Gates, addresses: list[str]) -> int:
    inside = most = 0

    async def login(address: str) -> None:
        nonlocal inside, most
        async with gates.login(address):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*map(login, addresses))
    assert inside == 0
    return most


async def test_few_to_one_host_and_a_bound_in_all() -> None:
    assert await most_at_once(Gates(), ["a"] * 50) == PER_HOST
    assert await most_at_once(Gates(), ["a"] * 50 + ["b"] * 50) == 2 * PER_HOST
    assert await most_at_once(Gates(20), [str(n) for n in range(50)]) == 20


async def test_refusals_make_it_narrower_and_successes_wider_again() -> None:
    gates = Gates()
    async with gates.login("a") as gate:
        for _ in range(10):
            gate.refused()
    assert await most_at_once(gates, ["a"] * 20) == 1
    for _ in range(20):
        gate.accepted()
    assert await most_at_once(gates, ["a"] * 50) == PER_HOST


async def test_giving_up_while_waiting_gives_the_turn_back() -> None:
    gates = Gates()
    async with gates.login("a") as gate:
        for _ in range(5):
            gate.refused()
        waiting = asyncio.ensure_future(most_at_once(gates, ["a"]))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert await most_at_once(gates, ["a"] * 3) == 1


def test_pauses_are_bounded() -> None:
    assert all(0 <= pause_before(retry) <= 3 for retry in range(1, 40))
