"""The quick way of output: whatever comes, in whatever pieces, sessions get what asyncssh alone would give them."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Iterable
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pegasus_py.node import sshquick, sshspare
from pegasus_py.node.sshimport import asyncssh
from pegasus_py.node.sshspare import spare_copies, spare_ignore_packets

GCM, CTR = b"aes128-gcm@openssh.com", b"aes128-ctr"
WINDOW = 4096
Told = list[tuple[Any, ...]]

u32 = asyncssh.packet.UInt32
string = asyncssh.packet.String


def data(channel: int, text: bytes) -> bytes:
    return bytes([94]) + u32(channel) + string(text)


def errors(channel: int, text: bytes) -> bytes:
    return bytes([95]) + u32(channel) + u32(1) + string(text)


IGNORED, UNKNOWN = bytes([2]) + string(b"nothing"), bytes([127]) + data(0, b"as if it were data")[1:]
EOF, TOO_LONG, NO_CHANNEL = bytes([96]) + u32(0), data(1, bytes(WINDOW + 1)), data(7, b"for nobody")
CUT_SHORT, TRAILING, EMPTY = data(0, b"abcdef")[:-2], data(0, b"abc") + b"d", b""


class Bare(bytes):
    """A payload that gets no padding."""


BARE = Bare(data(0, b"sixsix"))
TEXT = st.binary(max_size=300)
PACKETS = st.lists(
    st.builds(data, st.integers(0, 1), TEXT)
    | st.builds(errors, st.integers(0, 1), TEXT)
    | st.sampled_from([IGNORED, UNKNOWN])
    | st.sampled_from([IGNORED, EOF, TOO_LONG, NO_CHANNEL, CUT_SHORT, TRAILING, EMPTY, BARE]),
    max_size=12,
)


class Session(asyncssh.SSHClientSession[bytes]):
    def __init__(self, number: int, told: Told) -> None:
        self.number = number
        self.told = told

    def data_received(self, data: bytes, datatype: Any) -> None:
        if data == b"raise":
            raise ValueError("a fault of the session")
        self.told.append((self.number, datatype, bytes(data)))

    def eof_received(self) -> bool:
        self.told.append((self.number, "eof"))
        return True


def connected(told: Told, cipher: bytes) -> Any:
    """A connection that is logged in and has two channels, without a server: what it is given is all that comes."""
    options = asyncssh.SSHClientConnectionOptions(
        config=None, known_hosts=None, username="u", client_keys=None
    )
    connection: Any = asyncssh.SSHClientConnection(asyncio.get_running_loop(), options, wait=None)
    connection._recv_encryption, connection._recv_blocksize, connection._recv_macsize, _ = keys(cipher)
    connection._auth_complete = True
    connection._transport = MagicMock()
    connection._recv_handler = connection._recv_pkthdr
    connection.send_packet = lambda kind, *rest, **_: told.append(("sent", kind, *rest))
    connection._send_disconnect = lambda code, reason, lang: told.append(("disconnect", code, reason))
    connection.internal_error = lambda *_, **__: told.append(("internal error",))

    def closed(error: Exception | None) -> None:
        told.append(("closed",))
        connection._transport = None

    connection._force_close = closed
    for number in (0, 1):
        channel: Any = asyncssh.channel.SSHClientChannel(
            connection, asyncio.get_running_loop(), "strict", None, "strict", WINDOW, 1 << 17
        )
        channel._send_state = channel._recv_state = "open"
        channel._recv_paused, channel._send_chan = False, number
        channel._session = Session(number, told)
    return connection


def keys(cipher: bytes) -> tuple[Any, int, int, bool]:
    """A fresh state of the encryption, its block's size, its MAC's, and whether the length stays readable."""
    if cipher == GCM:
        return asyncssh.encryption.get_encryption(cipher, bytes(16), bytes(12)), 16, 16, True
    made = asyncssh.encryption.get_encryption(cipher, bytes(16), bytes(16), b"hmac-sha2-256", bytes(32))
    return made, 16, 32, False


def encrypted(payloads: Iterable[bytes], cipher: bytes) -> list[bytes]:
    encryption, blocks, _, etm = keys(cipher)
    packets = []
    for number, payload in enumerate(payloads):
        padding = -(1 + len(payload) + (0 if etm else 4)) % blocks
        padding += blocks if padding < 4 else 0
        padding = 0 if isinstance(payload, Bare) else padding
        whole = bytes([padding]) + payload + bytes(padding) if payload else b""
        packets.append(b"".join(encryption.encrypt_packet(number, u32(len(whole)), whole)))
    return packets


async def received(reads: Iterable[bytes], cipher: bytes, *, spared: bool) -> Told:
    told: Told = []
    connection = connected(told, cipher)
    if spared:
        spare_copies(connection)
    for read in reads:
        if connection._transport is None:
            break
        connection.data_received(read)
    told.append(("at", connection._recv_seq, bytes(connection._packet + connection._inpbuf)))
    return told


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    at = sorted({0, len(stream), *(min(max(place, 0), len(stream)) for place in places)})
    return [stream[a:b] for a, b in itertools.pairwise(at)]


@given(
    PACKETS,
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0, 0, -20, -3, 2, 4, 17, 60])), max_size=6),
    st.none() | st.integers(0, 10_000),
    st.sampled_from([GCM, GCM, GCM, CTR]),
    st.sampled_from([1, 200, 1 << 16]),
)
@example([EOF, data(0, b"too late")], [(1, 0)], None, GCM, 1)
def test_sessions_get_what_asyncssh_alone_would_give_them(
    payloads: list[bytes], places: list[tuple[int, int]], bad: int | None, cipher: bytes, large: int
) -> None:
    packets = encrypted(payloads, cipher)
    stream, borders = b"".join(packets), [0, *itertools.accumulate(map(len, packets))]
    if bad is not None and stream:
        at = bad % len(stream)
        stream = stream[:at] + bytes([stream[at] ^ 1]) + stream[at + 1 :]
    reads = cut(stream, (borders[number % len(borders)] + beside for number, beside in places))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sshspare, "LARGE", large)
        quick = asyncio.run(received(reads, cipher, spared=True))
    assert quick == asyncio.run(received(reads, cipher, spared=False))


def test_what_a_session_raises_ends_the_connection_and_nothing_more_is_given() -> None:
    packets = encrypted([data(0, text) for text in (b"a", b"raise", b"b", b"c")], GCM)
    told = asyncio.run(received([b"".join(packets[:2]), *packets[2:]], GCM, spared=True))
    assert told[:2] == [(0, None, b"a"), ("internal error",)]
    assert not [each for each in told if each[-1] in (b"b", b"c")]


def test_where_the_library_takes_no_view_all_is_left_to_asyncssh(monkeypatch: pytest.MonkeyPatch) -> None:
    """cryptography did not before version 40."""
    now = asyncssh.crypto.cipher.AESGCM  # type: ignore[attr-defined]

    class Old:
        def __init__(self, key: bytes) -> None:
            self.key = key

        def decrypt(self, nonce: bytes, text: bytes, more: bytes) -> bytes:
            if not isinstance(text, bytes) or not isinstance(more, bytes):
                raise TypeError("data must be bytes")
            plain: bytes = now(self.key).decrypt(nonce, text, more)
            return plain

        def encrypt(self, nonce: bytes, text: bytes, more: bytes) -> bytes:
            secret: bytes = now(self.key).encrypt(nonce, text, more)
            return secret

    monkeypatch.setattr(asyncssh.crypto.cipher, "AESGCM", Old)
    sshquick.key_of.cache_clear()
    stream = b"".join(encrypted([data(0, b"one"), data(1, b"two")], GCM))
    told = asyncio.run(received(cut(stream, [7, 40]), GCM, spared=True))
    sshquick.key_of.cache_clear()
    assert told[:2] == [(0, None, b"one"), (1, None, b"two")]


@pytest.mark.parametrize(("cipher", "expected"), [(GCM, 3), (CTR, 0)])
def test_only_packets_of_aes_gcm_go_the_quick_way(
    cipher: bytes, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the test above would compare asyncssh with itself."""
    taken = []
    hand_over = sshquick.hand_over

    def counted(own: Any, cipher: Any, key: Any, view: memoryview, at: int) -> int:
        end = hand_over(own, cipher, key, view, at)
        taken.extend([1] * bool(end))
        return end

    monkeypatch.setattr(sshquick, "hand_over", counted)
    stream = b"".join(encrypted([data(0, b"one"), data(1, b"two" * 50), data(0, b"three")], cipher))
    for places in ([], [20], [30, 70, 71], [5, 40]):
        taken.clear()
        told = asyncio.run(received(cut(stream, places), cipher, spared=True))
        assert [one[2] for one in told[:3]] == [b"one", b"two" * 50, b"three"]
        assert len(taken) == expected, f"asyncssh is made otherwise, or {places} is not understood"


def sending(cipher: bytes) -> tuple[Any, Any, list[bytes]]:
    """A connection that is logged in, a channel on it, and what goes out."""
    sent: list[bytes] = []
    connection = connected([], cipher)
    del connection.send_packet
    connection._kex_complete = True
    connection._rekey_time = time.monotonic() + 3600
    connection._send_encryption, connection._send_blocksize, _, is_clear = keys(cipher)
    connection._send_enchdrlen = 1 if is_clear else 5
    connection._transport.write = lambda data: sent.append(bytes(data))
    channel = connection._channels[0]
    channel._send_window, channel._send_pktsize, channel._encoding = 1000, 300, None
    return connection, channel, sent


def state(connection: Any, channel: Any) -> list[Any]:
    own = [
        connection._send_seq,
        connection._rekey_bytes_sent,
        connection._send_encryption.encrypt_packet(0, b"", b""),
    ]
    return [
        *own,
        channel._send_window,
        b"".join(bytes(one) for one, _ in channel._send_buf),
        channel._send_state,
    ]


@given(
    st.lists(st.binary(max_size=400) | st.just(b"more"), max_size=8),
    st.sampled_from([GCM, GCM, GCM, CTR]),
    st.integers(0, 900),
)
def test_what_is_sent_is_what_asyncssh_alone_would_send(texts: list[bytes], cipher: bytes, room: int) -> None:
    """To the byte, with padding that is no longer random: also when the window is full, and opens again."""

    async def sent(*, quick: bool) -> list[Any]:
        connection, channel, out = sending(cipher)
        spare_ignore_packets(connection)
        channel._send_window = room
        for text in texts:
            if text == b"more":
                channel._process_window_adjust(93, 0, asyncssh.packet.SSHPacket(u32(250)))
            elif not quick or not sshquick.send(channel, text):
                channel.write(text)
        return [b"".join(out), *state(connection, channel)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "urandom", bytes)
        assert asyncio.run(sent(quick=True)) == asyncio.run(sent(quick=False))


UNFIT: dict[str, tuple[str, str, Any]] = {
    "the window is full": ("channel", "_send_window", 3),
    "packets are smaller": ("channel", "_send_pktsize", 3),
    "something waits": ("channel", "_send_buf", [(bytearray(b"before"), None)]),
    "the channel is closed": ("channel", "_send_state", "closed"),
    "keys are being agreed on": ("connection", "_kex_complete", False),
    "new keys are due for the bytes": ("connection", "_rekey_bytes_sent", 1 << 40),
    "new keys are due for the time": ("connection", "_rekey_time", 0.0),
    "not logged in": ("connection", "_auth_complete", False),
    "gone": ("connection", "_transport", None),
    "compressed": ("connection", "_compressor", object()),
}


@pytest.mark.parametrize("what", UNFIT)
async def test_what_is_not_one_packet_of_plain_data_is_left_to_asyncssh(what: str) -> None:
    connection, channel, sent = sending(GCM)
    assert sshquick.send(channel, b"fits") and len(sent) == 1, "asyncssh is made otherwise"
    of, name, value = UNFIT[what]
    setattr({"channel": channel, "connection": connection}[of], name, value)
    before = state(connection, channel)[:2]
    assert not sshquick.send(channel, b"does not")
    assert len(sent) == 1 and state(connection, channel)[:2] == before


async def test_an_asyncssh_that_is_made_otherwise_is_left_to_itself() -> None:
    connection, channel, sent = sending(GCM)
    del connection._rekey_bytes_sent
    assert not sshquick.send(channel, b"text") and not sent


@pytest.mark.parametrize("name", ["AESGCM", "InvalidTag"])
def test_without_what_it_decrypts_with_all_is_left_to_asyncssh(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fewer:
        def __getattr__(self, wanted: str) -> Any:
            if wanted == name:
                raise AttributeError(wanted)
            return getattr(asyncssh.crypto.cipher, wanted)

    monkeypatch.setattr(sshquick, "_ciphers", Fewer())
    sshquick.key_of.cache_clear()
    assert asyncio.run(received(encrypted([data(0, b"one")], GCM), GCM, spared=True))[0] == (0, None, b"one")


def test_a_packet_in_small_pieces_is_joined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the middle of one waits with asyncssh, which joins what it has with each read; that is enough."""
    tried: list[int] = []
    hand_over = sshquick.hand_over

    def counted(own: Any, cipher: Any, key: Any, view: memoryview, at: int) -> int:
        tried.append(len(view))
        return hand_over(own, cipher, key, view, at)

    monkeypatch.setattr(sshquick, "hand_over", counted)
    (packet,) = encrypted([data(0, bytes(1500))], GCM)
    told = asyncio.run(received(cut(packet, range(0, 1600, 50)), GCM, spared=True))
    assert told[0] == (0, None, bytes(1500))
    assert sum(size >= len(packet) for size in tried) == 1 and len(tried) < 5
