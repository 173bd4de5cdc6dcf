"""Rounds of `true` on 64 sub-nodes of 8 nodes in lock-step."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

from benchmarks.bench import Bench, at_most, below, compared
from benchmarks.controller import hosts_yaml
from benchmarks.measure import Unusable, run
from benchmarks.peers import seats
from benchmarks.report import Row, Section


def run_case(bench: Bench) -> Section:
    each = bench.size(8, 2)
    rounds = bench.size(20, 4)
    nodes = bench.field.nodes(8)
    count = each * len(nodes)
    addresses = seats(bench.field, nodes, count)
    config, names = bench.field.seats(nodes, count, mux=True)
    list_file = bench.field.root / "broadcast-names"
    list_file.write_text("\n".join(names) + "\n")
    inventory = bench.field.root / "broadcast-inventory"
    inventory.write_text("\n".join(names) + "\n")

    def pegasus() -> float:
        queue = bench.queue(hosts_yaml(nodes, each), "- true\n" * rounds)
        queue.run("b")
        attempts = queue.succeeded(rounds * count)
        # Not before the second round: by then all are connected.
        start, end = attempts[count].began, attempts[-1].ended
        return (max(a.ended for a in attempts) - start) / (rounds - 1) if end else end

    def client(what: str) -> Callable[[], float]:
        return lambda: bench.peers.client(bench.field, what, addresses, rounds) / rounds

    def program(name: str, *words: str, **environment: str) -> Callable[[], float]:
        def once() -> float:
            env = {**os.environ, **environment}
            return run([bench.peers.programs[name], *words], env=env).seconds

        return once

    ssh_args = f"-F {config}"
    ways: dict[str, Callable[[], float]] = {
        "pegasus": pegasus,
        "asyncssh channels": client("asyncssh-rounds"),
    }
    if "parallel-ssh" in bench.peers.modules:
        ways["parallel-ssh library"] = client("parallel-ssh")
    at_once = str(count)
    programs = {
        "pdsh": program(
            "pdsh", "-R", "ssh", "-f", at_once, "-w", ",".join(names), "true", PDSH_SSH_ARGS_APPEND=ssh_args
        ),
        "clush": program("clush", "-f", at_once, "-o", ssh_args, "-w", ",".join(names), "true"),
        "pssh": program("pssh", "-p", at_once, "-x", ssh_args, "-h", str(list_file), "true"),
        "ansible": program(
            "ansible",
            "all",
            "-i",
            str(inventory),
            "-f",
            at_once,
            "-m",
            "raw",
            "-a",
            "true",
            ANSIBLE_SSH_ARGS=ssh_args,
            ANSIBLE_HOST_KEY_CHECKING="False",
            ANSIBLE_HOME=str(bench.field.root / "ansible"),
        ),
    }
    here = {name: way for name, way in programs.items() if name in bench.peers.programs}
    if here:
        _open_masters(str(config), names)
    found = bench.rounds({**ways, **here}, most=5)
    bench.field.close_masters(config, names)
    rows = [
        Row(f"a round of {count}", "s", found.get("pegasus"), target=below(0.10)),
        compared("", "s", found, "pegasus", "asyncssh channels", at_most(0.5)),
    ]
    rows += [
        compared("", "s", found, "pegasus", name)
        for name in ("parallel-ssh library", *programs)
        if name in found
    ]
    notes = (
        "connects excluded for all: OpenSSH's clients use masters that are open",
        "Pegasus by its ledger, from the second round's start to the last end",
    )
    return Section(
        "broadcast",
        f"broadcast of true on {count} sub-nodes of {len(nodes)} nodes, a round",
        tuple(rows),
        notes,
    )


def _open_masters(config: str, names: list[str]) -> None:
    for at in range(0, len(names), 8):
        going = [
            subprocess.Popen(
                ["ssh", "-F", config, name, "true"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for name in names[at : at + 8]
        ]
        if any(process.wait(60) for process in going):
            raise Unusable("the masters could not be opened")
