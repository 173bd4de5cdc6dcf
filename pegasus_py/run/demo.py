"""`pegasus demo`: the real queue mode over real SSH, on nodes that are servers in this process."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from pegasus_py.core.state import Settings
from pegasus_py.errors import ExitCode
from pegasus_py.node.ssh import SshConnector
from pegasus_py.run.life import Request, live_in_loop
from pegasus_py.show.table import table
from pegasus_py.show.words import first_line
from pegasus_py.store.ledger import Ledger
from pegasus_py.store.rundir import RunDir

HOSTS = """\
- hostname: [demo-1, demo-2]
  gpu: [0, 1]
- demo-3
"""

QUEUE = """\
- echo "hello from $PEGASUS_SUBNODE"
- command:
    - echo "train {{ model | replace('/', '--') }} with lr={{ lr }} on {{ hostname }}"; sleep 0.2
  model: [org/small, org/large]
  lr: [0.10, 1e-4]
- command: for i in $(seq {{ low }} {{ high }}); do echo "step $i"; sleep 0.05; done
  low: [1, 2]
  high: [3, 4]
- echo "the last one, on {{ hostname }}"
"""


def show() -> ExitCode:
    """Make nodes and a queue in a temporary directory, run the queue, and print what ran where."""
    with tempfile.TemporaryDirectory(prefix="pegasus-demo-") as name:
        directory = Path(name)
        hosts, queue = directory / "hosts.yaml", directory / "queue.yaml"
        hosts.write_text(HOSTS)
        queue.write_text(QUEUE)
        print("Three SSH servers on 127.0.0.1 are the nodes. hosts.yaml:\n")
        print(_indented(HOSTS))
        print("queue.yaml:\n")
        print(_indented(QUEUE))
        print("$ pegasus q\n", flush=True)
        code = asyncio.run(_run(directory, hosts, queue))
        print("\nWhat ran where:\n")
        _print_table(queue)
        return code


async def _run(directory: Path, hosts: Path, queue: Path) -> ExitCode:
    from pegasus_py.node.demoserver import DemoServers

    async with DemoServers(directory / "nodes") as servers:
        connector = SshConnector(config=servers.write_config())
        return await live_in_loop(Request(Settings(), hosts, queue, connector=connector))


def _print_table(queue: Path) -> None:
    with Ledger.open(RunDir(queue).ledger, create=False) as ledger:
        rows = [
            [str(row.job.id), row.job.subnode, str(row.state), first_line(row.job.command)]
            for row in reversed(ledger.jobs())
        ]
    width = os.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in table(
        ["job", "sub-node", "ended", "command"], rows, width=width, colour=False, flexible=(3,)
    ):
        print(line)


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())
