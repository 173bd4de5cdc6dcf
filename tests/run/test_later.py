"""Calls after a fixed time with one timer: each once, in order, none that was taken back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pegasus_py.run.later import Later


async def test_calls_come_once_and_in_order_and_not_when_taken_back() -> None:
    later, made, done = Later(0.01), [], asyncio.Event()
    calls = [later.call(lambda n=n: made.append(n)) for n in range(6)]  # type: ignore[misc]
    for number in (0, 3):
        calls[number].cancel()
    assert made == []
    await asyncio.sleep(0.005)
    later.call(lambda: made.append(6))
    later.call(done.set)
    await asyncio.wait_for(done.wait(), 30)
    assert made == [1, 2, 4, 5, 6]
    calls[1].cancel()


async def test_a_call_may_take_back_one_that_is_due_with_it() -> None:
    later, made, done = Later(0.001), [], asyncio.Event()
    later.call(lambda: second.cancel())
    second = later.call(lambda: made.append(2))
    later.call(done.set)
    await asyncio.wait_for(done.wait(), 30)
    assert made == []


async def test_a_call_may_give_another_one() -> None:
    later, rounds, done = Later(0.001), [], asyncio.Event()

    def again() -> None:
        rounds.append(1)
        if len(rounds) == 3:
            done.set()
        else:
            later.call(again)

    later.call(again)
    await asyncio.wait_for(done.wait(), 30)
    assert len(rounds) == 3


async def test_a_call_that_fails_keeps_back_no_other() -> None:
    later, done, errors = Later(0.001), asyncio.Event(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))

    def fail() -> None:
        raise ValueError("a fault")

    later.call(fail)
    later.call(done.set)
    await asyncio.wait_for(done.wait(), 30)
    assert len(errors) == 1


async def test_one_timer_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), []
    call_at = loop.call_at

    def counted(*arguments: Any, **more: Any) -> asyncio.TimerHandle:
        timers.append(1)
        return call_at(*arguments, **more)

    monkeypatch.setattr(loop, "call_at", counted)
    later, done = Later(0.01), asyncio.Event()
    for _ in range(100):
        later.call(lambda: None).cancel()
    later.call(done.set)
    assert len(timers) == 1
    await asyncio.wait_for(done.wait(), 30)
    assert not later._calls
