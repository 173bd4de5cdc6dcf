"""known_hosts files: which keys are known for a host, where that is written, and learning a new one.

Pure text and files, no SSH library: a key is its type and its base64 text. The rules are those of OpenSSH (sshd(8),
"SSH_KNOWN_HOSTS FILE FORMAT"): wildcards, negation, hashed names, [host]:port, @cert-authority and @revoked.
A line that is not understood is skipped, as ssh does.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from pegasus_py.errors import Place


class KnownKey(Struct, frozen=True):
    """One line of a known_hosts file. `marker` is "", "cert-authority" or "revoked"; `blob` is base64."""

    marker: str
    names: str
    kind: str
    blob: str
    place: Place

    def is_for(self, name: str) -> bool:
        """Whether the line speaks of `name`, which is lower case and has its port ("[host]:2222") unless 22."""
        if self.names.startswith("|"):
            return _hash_matches(self.names, name)
        found = False
        for pattern in self.names.lower().split(","):
            if pattern.startswith("!"):
                if _glob(pattern[1:], name):
                    return False
            elif pattern == name or _glob(pattern, name):
                found = True
        return found


class Verdict(Enum):
    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    """Other keys are known for this host. Never accepted, whatever the options say."""
    REVOKED = "revoked"


class Finding(Struct, frozen=True):
    """What the files say of an offered key; `place` is the line that decided, if one did."""

    verdict: Verdict
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class HostKeys:
    """Where to look for a host's keys, under which name, and where to write a learnt one.

    `pins` holds what was learnt in this process, by name, so that a key learnt into /dev/null is still held to.
    """

    host: str
    port: int = 22
    alias: str | None = None
    user_files: tuple[Path, ...] = ()
    global_files: tuple[Path, ...] = ()
    hashed: bool = False
    pins: dict[str, KnownKey] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """The name under which the host is looked up and learnt."""
        if self.alias:
            return self.alias.lower()
        return self.host.lower() if self.port == 22 else f"[{self.host.lower()}]:{self.port}"

    def lines(self) -> tuple[KnownKey, ...]:
        """All lines for the host; those without the port where there are none with it, as ssh does."""
        return self._lines(self.name) or (() if self.alias else self._lines(self.host.lower()))

    def _lines(self, name: str) -> tuple[KnownKey, ...]:
        found = [key for file in (*self.user_files, *self.global_files) for key in _read(file, name)]
        if name in self.pins:
            found.append(self.pins[name])
        return tuple(found)

    def judge(self, kind: str, blob: str) -> Finding:
        """What is known of this plain host key."""
        lines = self._lines(self.name)
        for key in lines:
            if key.marker == "revoked" and key.blob == blob:
                return Finding(Verdict.REVOKED, key.place)
        plain = [key for key in lines if not key.marker]
        for key in plain or (k for k in self.lines() if not k.marker):
            if (key.kind, key.blob) == (kind, blob):
                return Finding(Verdict.KNOWN, key.place)
        if plain:
            same_kind = [key for key in plain if key.kind == kind]
            return Finding(Verdict.CHANGED, (same_kind or plain)[0].place)
        return Finding(Verdict.UNKNOWN)

    def authorities(self) -> frozenset[str]:
        """The keys (base64) whose certificates for this host count."""
        return frozenset(key.blob for key in self.lines() if key.marker == "cert-authority")

    def revoked(self) -> tuple[KnownKey, ...]:
        return tuple(key for key in self.lines() if key.marker == "revoked")

    def learn(self, kind: str, blob: str) -> Path | None:
        """Append the key to the first of the user's files (0600, made if needed). OSError if that fails.

        Returns the file, or None where the configuration names none: then this process alone remembers.
        """
        file = self.user_files[0] if self.user_files else None
        self.pins[self.name] = KnownKey("", self.name, kind, blob, Place(str(file or "this run")))
        if file is not None:
            _append(file, f"{_hash(self.name) if self.hashed else self.name} {kind} {blob}\n")
        return file


def parse_known_hosts(text: str, file: str) -> tuple[KnownKey, ...]:
    """The lines of a known_hosts file that are understood."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        marker = words.pop(0)[1:] if words and words[0].startswith("@") else ""
        if len(words) >= 3 and not words[0].startswith("#") and marker in ("", "cert-authority", "revoked"):
            names, kind, blob = words[:3]
            found.append(KnownKey(marker, names, kind, blob, Place(file, number)))
    return tuple(found)


def _read(file: Path, name: str) -> tuple[KnownKey, ...]:
    """What the file says of `name`."""
    try:
        stat = file.stat()
        return _read_for(name, file, stat.st_mtime_ns, stat.st_size, stat.st_ino)
    except OSError:
        return ()


@lru_cache(maxsize=2048)
def _read_for(name: str, file: Path, *version: int) -> tuple[KnownKey, ...]:
    # Hashed names are dear to look through, and a node's connections all ask the same.
    return tuple(key for key in _read_version(file, *version) if key.is_for(name))


@lru_cache(maxsize=32)
def _read_version(file: Path, *version: int) -> tuple[KnownKey, ...]:
    return parse_known_hosts(file.read_text(encoding="utf-8", errors="replace"), str(file))


def _glob(pattern: str, name: str) -> bool:
    if "*" not in pattern and "?" not in pattern:
        return pattern == name
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def _hash_matches(hashed: str, name: str) -> bool:
    try:
        _, magic, salt, digest = hashed.split("|")
        return magic == "1" and hmac.compare_digest(
            _digest(base64.b64decode(salt), name), base64.b64decode(digest)
        )
    except ValueError:
        return False


def _hash(name: str) -> str:
    salt = os.urandom(20)
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(_digest(salt, name)).decode()}"


def _digest(salt: bytes, name: str) -> bytes:
    return hmac.new(salt, name.encode(), hashlib.sha1).digest()


def _append(file: Path, line: str) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        os.write(fd, (("\n" if torn else "") + line).encode())
    finally:
        os.close(fd)


HOST_KEY_KINDS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)


def algorithms_for(lines: Sequence[KnownKey]) -> list[str]:
    """Host key algorithms to ask for: certificates if an authority is known, then the known kinds, then the rest.

    Known kinds first, so that a server with several keys shows the one that we can check; the rest too, so that a
    key of another kind is told as changed rather than as a failed negotiation.
    """
    known = {algorithm for key in lines if not key.marker for algorithm in _algorithms_of(key.kind)}
    plain = sorted(HOST_KEY_KINDS, key=lambda algorithm: algorithm not in known)
    has_authority = any(key.marker == "cert-authority" for key in lines)
    return [*([f"{a}-cert-v01@openssh.com" for a in HOST_KEY_KINDS] if has_authority else []), *plain]


def _algorithms_of(kind: str) -> tuple[str, ...]:
    return ("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,)
