"""What people use instead: how each is called, and which of them are here. Nothing is installed by this."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.field import ROOT, Field
from benchmarks.measure import run

PYTHON_VARIABLE = "PEGASUS_BENCH_PYTHON"
"""An environment variable that names the interpreter with ssh-python, ssh2-python, parallel-ssh and Ansible."""

Seats = Sequence[tuple[str, int]]


def python() -> str:
    return os.environ.get(PYTHON_VARIABLE, sys.executable)


def _beside_python(name: str) -> str | None:
    found = Path(python()).parent / name
    return str(found) if found.exists() else shutil.which(name)


def _has_module(name: str) -> bool:
    try:
        done = subprocess.run([python(), "-c", f"import {name}"], capture_output=True, timeout=60)
    except OSError:
        return False
    return done.returncode == 0


class Peers:
    """The peers that are here. `missing` names the others."""

    def __init__(self) -> None:
        programs = {
            "parallel": shutil.which("parallel"),
            "pdsh": shutil.which("pdsh"),
            "pssh": shutil.which("parallel-ssh") or shutil.which("pssh"),
            "clush": shutil.which("clush"),
            "ansible": _beside_python("ansible"),
        }
        self.programs = {name: path for name, path in programs.items() if path}
        modules = {"libssh": "ssh.session", "libssh2": "ssh2.session", "parallel-ssh": "pssh.clients"}
        self.modules = {name for name, module in modules.items() if _has_module(module)}
        wanted = {"parallel": "GNU parallel", "libssh": "ssh-python", "libssh2": "ssh2-python"}
        self.missing = sorted(
            wanted.get(name, name)
            for name in [*programs, *modules]
            if name not in self.programs and name not in self.modules
        )

    def client(self, field: Field, what: str, seats: Seats, count: int) -> float:
        """Seconds that one of `benchmarks.clients` took, as it says itself."""
        interpreter = sys.executable if what.startswith("asyncssh") else python()
        user = field.farm["node-1"].user
        words: list[str | Path] = [
            interpreter,
            ROOT / "benchmarks" / "clients.py",
            what,
            user,
            field.key,
            str(count),
        ]
        done = run(words, stdin=json.dumps(list(seats)).encode(), env={"PATH": os.environ["PATH"]})
        return float(json.loads(done.output))


def seats(field: Field, nodes: Sequence[str], count: int) -> list[tuple[str, int]]:
    """Addresses for `count` connections, round robin."""
    servers = [field.farm[node] for node in nodes]
    return [(s.address, s.port) for s in (servers[n % len(servers)] for n in range(count))]
