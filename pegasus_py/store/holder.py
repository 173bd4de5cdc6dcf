"""Who controls a queue: a process, named so that another one can tell whether it still lives.

Cheap to import: `pegasus stop` starts with it.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict

from pegasus_py.store.disk import boot_id


class Holder(Struct, frozen=True):
    """A controller's process. `since` is in seconds of the wall clock.

    `boot`, `namespace` and `start` tell it from others that had or have its pid; they are empty where the system
    does not say them. `mode` is what it does ("queue", "broadcast"); it takes SIGUSR1 as a knock if `signals`.
    """

    pid: int
    host: str
    boot: str
    namespace: str
    start: str
    mode: str
    since: float
    signals: bool

    @classmethod
    def me(cls, mode: str, *, signals: bool) -> Holder:
        pid = os.getpid()
        start = _process(pid)[1]
        return cls(pid, os.uname().nodename, boot_id(), _namespace(), start, mode, time.time(), signals)

    @property
    def is_here(self) -> bool:
        """Whether this process could see it: the same host, not rebooted since, and the same pid namespace."""
        return (self.host, self.boot, self.namespace) == (os.uname().nodename, boot_id(), _namespace())

    def is_alive(self) -> bool | None:
        """Whether it lives; None if that cannot be told from here (another host or container)."""
        if self.host != os.uname().nodename:
            return None
        if self.boot != boot_id():
            return False
        if self.namespace != _namespace():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        state, start = _process(self.pid)
        return state not in ("Z", "X") and start == self.start

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"pid {self.pid} on {self.host}, since {since}"


def write_holder(path: Path, holder: Holder) -> None:
    """Put it there in one step, mode 0600."""
    write_whole(path, json.dumps(asdict(holder)).encode())


def read_holder(path: Path) -> Holder | None:
    """Who is named there; None if nobody is, or not in a way that we understand."""
    try:
        values = json.loads(path.read_bytes())
        kinds: dict[str, type] = {"pid": int, "since": float, "signals": bool}
        if not all(isinstance(values[f], kinds.get(f, str)) for f in Holder.__struct_fields__):
            return None
        holder = Holder(**{f: values[f] for f in Holder.__struct_fields__})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return holder if holder.pid > 0 else None


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file so that nobody ever sees a part of it, mode 0600."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _process(pid: int) -> tuple[str, str]:
    """State letter and start time (clock ticks after boot) of a process; empty where the system does not say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return "", ""
    values = stat.rpartition(")")[2].split()
    return values[0], values[19]


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
