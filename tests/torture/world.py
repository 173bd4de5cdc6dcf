"""A small world to be cruel to: real sshd nodes, a queue of known tasks, and controllers as processes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support import procs
from tests.support.sshd import SshFarm
from tests.torture.plan import JOB, Plan

ROOT = Path(__file__).parents[2]
PEGASUS = (sys.executable, "-m", "pegasus_py")
RUN_WITHIN = 600.0
"""Seconds after which a run that does not come to its end is taken for hung."""


class Controller:
    """A `pegasus q` or `b` of its own process group; what it prints goes to `log`."""

    def __init__(self, command: Sequence[str], cwd: Path, env: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.pid = self.process.pid

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    @property
    def ended(self) -> int | None:
        """Its exit code once it has ended (-9: killed by KILL)."""
        return self.process.poll()

    def signal(self, sig: int) -> None:
        """To the whole group, so that it also works through `strace`. Fine when it has ended."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, sig)

    def kill(self) -> int:
        """kill -9 of the controller alone, at once; what it returned."""
        if self.process.poll() is None:
            self.process.kill()
        return self.process.wait()

    def wait(self, within: float = RUN_WITHIN) -> int:
        """Its exit code. AssertionError with what it printed if it takes too long."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the run hangs after {within} s; it said:\n{self.text[-4000:]}") from None


class World:
    """`nodes` servers with `subnodes` sub-nodes in all (and `localhost`, if `local`), and the queue of `plan`.

    starter.py is used on every other node, the script alone on the rest; without `starter`, on all.

    Use as a context. `seed` is for the tests' choices (`rng`), and is printed. `server_options` is for sshd_config.
    The nodes' own HOMEs are `homes`; the queue is in `dir`. Afterwards `tests.torture.oracle.judge` says what is true.
    """

    def __init__(
        self,
        root: Path,
        plan: Plan,
        rng: random.Random | None = None,
        *,
        nodes: int = 2,
        subnodes: int = 6,
        local: bool = True,
        mode: str = "q",
        server_options: Mapping[str, str] | None = None,
        routes: Mapping[str, tuple[str, int]] | None = None,
        queue_dir: Path | None = None,
        starter: bool = True,
    ) -> None:
        self.root = root
        self.plan = plan
        self.rng = rng or random.Random(0)
        self.mode = mode
        self.home = root / "home"
        self.dir = queue_dir or root / "queue"
        self.queue = self.dir / "queue.yaml"
        self.consumed = self.dir / "consumed.yaml"
        self.state = self.dir / ".pegasus" / "queue.yaml"
        self.controllers: list[Controller] = []
        for directory in (self.home, self.dir, root / "plan", root / "runs"):
            directory.mkdir(parents=True, exist_ok=True)
        self.farm = SshFarm(root / "nodes", nodes, server_options)
        for server in list(self.farm)[1 if starter else 0 :: 2 if starter else 1]:
            server.environment["PEGASUS_PYTHON"] = ""
        self.homes = {server.name: server.home for server in self.farm}
        if local:
            self.homes["localhost"] = self.home
        counts = dict.fromkeys(self.farm.names, 0)
        for k in range(subnodes - local):
            counts[self.farm.names[k % nodes]] += 1
        self.subnodes = [
            f"{n}/{gpu}" if count > 1 else n for n, count in counts.items() for gpu in range(count)
        ]
        self.subnodes += ["localhost"] * local
        self.hosts = self.dir / "hosts.yaml"
        self.hosts.write_text(
            "".join(
                f"- hostname: {n}\n  gpu: [{', '.join(map(str, range(c)))}]\n" for n, c in counts.items() if c
            )
            + "- localhost\n" * local
        )
        self.route(routes)
        self.add(plan)
        self.queue.write_text(plan.text)

    def route(self, routes: Mapping[str, tuple[str, int]] | None) -> None:
        """Lead node names through other addresses (proxies); for controllers that start from now on."""
        self.farm.configure(self.home, routes)

    def add(self, plan: Plan) -> None:
        """Make the nodes know the tasks of `plan` (the queue is left alone)."""
        for task in plan.tasks.values():
            (self.root / "plan" / str(task.number)).write_text(f"{task.seconds} {task.status} {task.lines}\n")
        for home in self.homes.values():
            (home / "job").write_text(JOB.format(plan=self.root / "plan"))

    def reset(self, plan: Plan) -> None:
        """The same nodes, and all else anew: another queue that has never been run."""
        for path in [p for p in self.dir.iterdir() if p != self.hosts]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for home in self.homes.values():
            (home / "began").unlink(missing_ok=True)
        self.plan = plan
        self.add(plan)
        self.queue.write_text(plan.text)

    def __enter__(self) -> World:
        self.farm.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        for controller in self.controllers:
            if controller.ended is None:
                controller.signal(signal.SIGCONT)
                controller.signal(signal.SIGKILL)
                controller.process.wait()
        self.farm.stop()
        procs.kill(procs.carriers(f"HOME={self.home}"))

    # --- controllers

    @property
    def env(self) -> dict[str, str]:
        """Of everything that belongs to the controller's side."""
        kept = {
            k: v
            for k, v in os.environ.items()
            if k in ("PATH", "LANG", "LC_ALL", "PEGASUS_TEST_MARK", "TMPDIR")
        }
        # Bytecode beside the sources would make the first start unlike the others.
        return {**kept, "HOME": str(self.home), "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}

    def start(
        self, *options: str, wrapper: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> Controller:
        """Start a controller of the world's mode; `wrapper` is a command that runs it (strace, say)."""
        command = [*wrapper, *PEGASUS, self.mode, "-H", str(self.hosts), "-Q", str(self.queue), *options]
        log = self.root / "runs" / f"{len(self.controllers) + 1}.log"
        controller = Controller(command, self.dir, {**self.env, **(env or {})}, log)
        self.controllers.append(controller)
        return controller

    def finish(self, *options: str, within: float = RUN_WITHIN) -> int:
        """Run undisturbed to the end; the exit code, which says whether all jobs of this last run succeeded."""
        controller = self.start(*options)
        code = controller.wait(within)
        assert code in (0, 1), f"exit code {code} of the last run; it said:\n{controller.text[-4000:]}"
        return code

    def pegasus(self, *words: str, within: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Another command, such as `pegasus stop`, to its end. `-Q` is added."""
        command = [*PEGASUS, words[0], "-Q", str(self.queue), *words[1:]]
        return subprocess.run(
            command, cwd=self.dir, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=within, check=False,
        )  # fmt: skip

    # --- what has happened so far, told by the jobs

    def starts(self) -> Iterator[tuple[str, int, str, str]]:
        """Every start: attempt id, task number, sub-node, node."""
        for node, home in self.homes.items():
            with suppress(FileNotFoundError):
                for line in (home / "began").read_text().splitlines():
                    attempt, number, subnode = line.split()
                    yield attempt, int(number), subnode, node

    def began(self) -> int:
        """How many starts there were."""
        return sum(1 for _ in self.starts())

    def wait_for_starts(self, count: int, controller: Controller, within: float = 30.0) -> None:
        """Until `count` starts have been, or the controller has ended, or time is up."""
        deadline = time.monotonic() + within
        while self.began() < count and controller.ended is None and time.monotonic() < deadline:
            time.sleep(0.003)

    def spools(self) -> list[Path]:
        """Files that Pegasus has left on the nodes."""
        found = []
        for home in self.homes.values():
            found += [p for p in (home / ".local/state/pegasus").rglob("*") if not p.is_dir()]
        return found

    def processes(self) -> list[int]:
        """Everything that lives on the nodes on behalf of a login, and local jobs."""
        pids = [pid for server in self.farm for pid in server.processes()]
        return pids + [p for p in procs.carriers(f"HOME={self.home}") if p not in pids]

    def keep_evidence(self, to: Path) -> None:
        """Copy queue directory, what the controllers said and what the jobs told to `to`."""
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.dir, to / "queue", symlinks=True, ignore=shutil.ignore_patterns("control"))
        shutil.copytree(self.root / "runs", to / "runs")
        for node, home in self.homes.items():
            with suppress(FileNotFoundError):
                shutil.copy(home / "began", to / f"began.{node}")
