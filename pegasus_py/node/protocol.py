"""What goes over a shell's stdin and stdout between the controller and the node-side script, as bytes.

Requests are lines of words; a text travels after its line, counted in lines, or in bytes if the lines are 0. Answers
are lines of words too, some with counted bytes behind them. One request is under way at a time on a channel. NAME is
an attempt's id without the queue's. Times are centiseconds. CLOCK and DEADLINE are the node's own, since its boot.

    (first of all)                           pegasus-hello BOOT MACHINE BASH GROUP CLOCK FRESH,
                                             pegasus-overtaken EPOCH, pegasus-error wrong|trouble TEXT
    serve BYTES +text                        none; the text, starter.py, answers what follows if it can
    start NAME LINES BYTES DEADLINE          exit NAME STATUS SIZE COUNT +bytes, or "-" for COUNT; exists NAME;
      [CLEAR...] +text                       refused NAME REASON (after DEADLINE too, unless it is "-");
                                             overtaken EPOCH
    attach NAME                              exit as above, or report as below
    ask NAME...; fence NAME                  report NAME SPOT STATUS SIZE MACHINE for each
    read NAME OFFSET LENGTH                  data NAME COUNT +bytes
    follow NAME OFFSET                       follow NAME, and from there on the bytes as they are
    end NAME GRACE                           survivor NAME PID COMMAND for each, ended NAME
    run NAME LINES BYTES LIMIT +text         ran NAME STATUS
    clear NAME...; list; know; bye           cleared; name FILE for each, listed; known; bye

Any question may be answered with `error TEXT` instead.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from pegasus_py.core.model import SubNode
from pegasus_py.node.shell import END_MARK

INLINE_LIMIT = 8192
"""Bytes: output up to this size comes with the exit frame."""

_NOISE_LIMIT = 1 << 20
_LINE_LIMIT = 1 << 16
_LINES_FASTER_BELOW = 4096


class ProtocolError(Exception):
    """What came over the channel is not what the script says: the channel cannot be used any more."""


BY_STARTER = (b"start", b"clear", b"read", b"bye")
"""The requests that starter.py answers itself; at any other it ends, and the script goes on. At `bye` both end."""


def _beside_us(name: str) -> bytes:
    # importlib.resources would read it from an archive, too; to import that takes 3 ms.
    return Path(__file__).with_name(name).read_bytes()


@functools.cache
def serve_request() -> bytes:
    """The request that has starter.py take over from the script, where the node can run it. It has no answer."""
    text = _beside_us("starter.py")
    return request("serve", len(text)) + text


@functools.cache
def script() -> str:
    """The node-side script without comments, indentation and empty lines."""
    text = _beside_us("runner.sh").decode("ascii")
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def greeting(role: str, queue_id: str, epoch: int, token: str, subnode: SubNode) -> bytes:
    """What BOOTSTRAP is fed with: the script and the call that makes it a runner for this sub-node.

    `role` is `control` or `aux`, `token` a word that no other runner has. ValueError if a name has a line break.
    """
    values = [subnode.spool or "", subnode.hostname, subnode.name]
    if any("\n" in value or "\0" in value or END_MARK in value for value in values):
        raise ValueError(f"the names of sub-node {subnode.name!r} must be one line")
    words = [role, queue_id, str(epoch), _file_word(subnode.name), token, *values]
    call = "pegasus " + " ".join(shlex.quote(word) for word in words)
    return f"{script()}\n{call}\n{END_MARK}\n".encode("utf-8", "surrogateescape")


def _file_word(name: str) -> str:
    word = quote(name, safe="").replace(".", "%2E").replace("~", "%7E")
    if len(word) <= 100:
        return word
    import hashlib

    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def request(verb: str, *words: str | int) -> bytes:
    """A request without a text."""
    return f"{' '.join([verb, *map(str, words)])}\n".encode()


def text_request(verb: str, name: str, text: str, words: Sequence[str | int] = ()) -> bytes:
    """A request about attempt `name` with a text of any length behind it.

    A short text goes as lines, which the shell reads byte by byte without a fork; a long one as raw bytes.
    """
    data = text.encode("utf-8", "surrogateescape")
    if len(data) < _LINES_FASTER_BELOW and b"\0" not in data:
        lines = data.count(b"\n") + 1
        return request(verb, name, lines, len(data), *words) + data + b"\n"
    return request(verb, name, 0, len(data), *words) + data


class FrameReader:
    """Cuts what comes from a shell into frames, whatever blocks it comes in.

    `on_frame(words, body)` gets the words of a frame's line and the bytes counted behind it. What comes before the
    script's first word (a login's own chatter) is dropped. After a `follow` frame all goes to `on_raw` as it is.
    """

    def __init__(
        self, on_frame: Callable[[list[str], bytes], None], on_raw: Callable[[bytes], None] | None = None
    ) -> None:
        self._on_frame = on_frame
        self._on_raw = on_raw
        self._rest = b""
        self._greeted = False
        self._noise = 0
        self._words: list[str] = []
        self._body: list[bytes] = []
        self._missing = 0
        self._raw = False

    def feed(self, data: bytes) -> None:
        """Raises ProtocolError; the reader is of no use after that."""
        if self._raw:
            self._give_raw(data)
            return
        if self._missing:
            taken = data[: self._missing]
            self._body.append(taken)
            self._missing -= len(taken)
            if self._missing:
                return
            data = data[len(taken) :]
            self._on_frame(self._words, b"".join(self._body))
            self._body = []
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at = 0
        while (end := data.find(b"\n", at)) >= 0:
            line = data[at:end]
            at = end + 1
            if not self._greeted:
                self._greet(line)
                continue
            words = line.decode("utf-8", "replace").split(" ")
            count = _counted(words)
            if len(data) - at < count:
                self._words, self._body = words, [data[at:]]
                self._missing = count - (len(data) - at)
                return
            self._on_frame(words, data[at : at + count])
            at += count
            if words[0] == "follow":
                self._raw = True
                self._give_raw(data[at:])
                return
        self._rest = data[at:]
        if not self._greeted:
            # Of chatter without a line break only what could be the beginning of our word is of use.
            self._hear_noise(max(0, len(self._rest) - _LINE_LIMIT))
            self._rest = self._rest[-_LINE_LIMIT:]
        elif len(self._rest) > _LINE_LIMIT:
            raise ProtocolError("a line without end")

    def _greet(self, line: bytes) -> None:
        if line.startswith(b"pegasus-"):
            self._greeted = True
            self._on_frame(line.decode("utf-8", "replace").split(" "), b"")
        else:
            self._hear_noise(len(line) + 1)

    def _hear_noise(self, size: int) -> None:
        self._noise += size
        if self._noise + len(self._rest) > _NOISE_LIMIT:
            raise ProtocolError("the login prints without end")

    def _give_raw(self, data: bytes) -> None:
        if data and self._on_raw is not None:
            self._on_raw(data)


def _counted(words: list[str]) -> int:
    """How many bytes follow the line of a frame."""
    try:
        if words[0] == "exit":
            return int(words[4]) if words[4] != "-" else 0
        if words[0] == "data":
            return int(words[2])
    except (IndexError, ValueError):
        raise ProtocolError(f"a frame that is none: {' '.join(words)[:100]!r}") from None
    return 0
