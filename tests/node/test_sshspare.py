"""What asyncssh is spared, and that it gets the same bytes."""

from __future__ import annotations

import hashlib
import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_py.node import sshquick, sshspare
from pegasus_py.node.shell import END_MARK
from pegasus_py.node.ssh import SshConnector
from pegasus_py.node.sshimport import asyncssh
from pegasus_py.node.sshspare import Rest
from tests.conftest import NewServer
from tests.support.shells import Collector, node
from tests.support.sshd import SshFarm

PLACES = st.none() | st.integers(-12, 12)


@given(st.binary(max_size=9), st.integers(0, 9), st.lists(st.tuples(PLACES, PLACES), max_size=6), st.binary())
def test_a_rest_answers_as_bytes_would(
    data: bytes, at: int, parts: list[tuple[int | None, int | None]], more: bytes
) -> None:
    at = min(at, len(data))
    rest, expected = Rest(data, at), data[at:]
    for start, end in parts:
        assert (len(rest), bool(rest), bytes(rest)) == (len(expected), bool(expected), expected)
        assert bytes(rest + more) == expected + more
        assert more + rest == more + expected
        assert (rest == more) is (expected == more)
        assert rest == expected
        assert hash(rest) == hash(expected)
        assert rest[start:end:2] == expected[start:end:2]
        assert rest.find(more) == expected.find(more)
        if expected:
            assert rest[-1] == expected[-1]
        part, wanted = rest[start:end], expected[start:end]
        assert bytes(part) == wanted
        if isinstance(part, Rest):
            rest, expected = part, wanted
            assert expected, "an empty one would keep all that was read"


@pytest.mark.parametrize("options", [{}, {"RekeyLimit": "1M"}, {"Ciphers": "aes128-ctr"}])
async def test_much_at_once_comes_as_it_was_sent(
    options: dict[str, str],
    new_server: NewServer,
    new_farm: SshFarm,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Read in large pieces, each with many packets in it, and with new keys agreed on in between."""
    sent = random.Random(5).randbytes(20_000_000)
    server = new_server("much", options)
    new_farm.configure(home)
    (server.home / "much").write_bytes(sent)
    rests: list[int] = []

    class Counted(Rest):
        def __init__(self, data: bytes, at: int = 0) -> None:
            rests.append(len(data))
            super().__init__(data, at)

    quick: list[int] = []

    take = sshquick.take

    def watched(connection: asyncssh.SSHClientConnection, kept: bytes, data: bytes) -> tuple[bytes, int]:
        rest, at = take(connection, kept, data)
        quick.append(at)
        return rest, at

    monkeypatch.setattr(sshspare, "Rest", Counted)
    monkeypatch.setattr(sshquick, "take", watched)
    connection = await SshConnector().connect(node("much"))
    collector = Collector()
    stream = await connection.open_shell(collector)
    stream.write(f"echo; exec cat ~/much\n{END_MARK}\n".encode())
    await collector.until(bool)
    time.sleep(0.2)  # noqa: ASYNC251 -- so that much has come when the next read is made
    await collector.until(lambda data: len(data) == len(sent) + 1)
    assert hashlib.sha256(collector.data[1:]).digest() == hashlib.sha256(sent).digest()
    if options:
        assert max(rests, default=0) >= sshspare.LARGE, "asyncssh has renamed it: rests are copied again"
    else:
        assert sum(quick) > len(sent) / 4, (
            "asyncssh is made otherwise: its packets no longer go the quick way"
        )
    stream.close()
    await connection.close()


async def test_a_connection_that_is_gone_leaves_no_key(farm: SshFarm, home: Path) -> None:
    farm.configure(home)
    connection = await SshConnector().connect(node(farm.names[0]))
    collector = Collector()
    stream = await connection.open_shell(collector)
    stream.write(f"echo here\n{END_MARK}\n".encode())
    await collector.until(lambda data: b"here" in data)
    assert sshquick.key_of.cache_info().currsize
    await connection.close()
    assert not sshquick.key_of.cache_info().currsize
