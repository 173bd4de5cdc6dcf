"""One life of a controller, from files to exit code: check, claim, recover, connect, run, sum up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path

from msgspec import Struct

from pegasus_py.core.events import Note
from pegasus_py.core.hosts import parse_hosts
from pegasus_py.core.model import SubNode
from pegasus_py.core.moves import Outcome
from pegasus_py.core.state import Mode, Settings, State, new_state
from pegasus_py.errors import BadInput, ExitCode, PegasusError, Place, StorageError
from pegasus_py.node.local import LocalConnector
from pegasus_py.node.shell import Connector
from pegasus_py.node.ssh import SshConnector
from pegasus_py.run.check import check_queue
from pegasus_py.run.control import Control, make_mortal, mortal, signals_restored
from pegasus_py.run.engine import Engine, Stores
from pegasus_py.run.leftovers import Sweeper
from pegasus_py.run.link import Link, Plant
from pegasus_py.run.mend import mend_queue
from pegasus_py.run.past import Past, take_up
from pegasus_py.run.screen import Screen
from pegasus_py.run.startline import StartLine
from pegasus_py.run.taker import Taker
from pegasus_py.show.summary import Summary
from pegasus_py.show.words import counted
from pegasus_py.store.ledger import Ledger
from pegasus_py.store.logs import LogFiles
from pegasus_py.store.queuefile import QueueFile
from pegasus_py.store.rundir import Claim, RunDir

LEAVE_WITHIN = 5.0
"""Seconds that the nodes get for clearing up when the run is over."""


class Request(Struct, frozen=True):
    """What the command line asked for. `grace` is in seconds; `connector` replaces SSH (the demo's own servers)."""

    settings: Settings
    hosts_file: Path
    queue_file: Path
    accept_new: bool = False
    grace: float = 10.0
    json: bool = False
    connector: Connector | None = None


KEPT = (32 << 20) - (64 << 10)
"""Bytes that glibc's allocator is led to keep for the next large block instead of giving them back to the system.

Much output goes through blocks of some 100 kB that live for a moment, and to get fresh pages for each is a tenth of the
controller's CPU. glibc adapts to the largest block that was freed, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD).
"""

_NOT_ALL = "a node cannot be reached and --require-all was given: the rest stays in the queue"
_SAY = {
    Outcome.ABORTED: "a command failed and --error-aborts was given: the rest stays in the queue",
    Outcome.NO_NODES: "no node can be reached: the rest stays in the queue",
    Outcome.LEFT: "left; what runs goes on, and the next run takes it up",
}


def live(request: Request) -> ExitCode:
    """Run the queue to its end and return the exit code. Raises PegasusError when it cannot even begin."""
    bytes(KEPT)  # not touched, so it costs nothing
    with signals_restored():
        return asyncio.run(_to_the_end(request))


async def _to_the_end(request: Request) -> ExitCode:
    try:
        return await live_in_loop(request)
    finally:
        # All that is still waited for are threads, and a command of somebody's ssh configuration may hold one.
        make_mortal()


async def live_in_loop(request: Request) -> ExitCode:
    """The same in a running event loop."""
    subnodes = _read_hosts(request.hosts_file)
    queue = QueueFile(request.queue_file)
    check_queue(queue, subnodes)
    screen = Screen([s.name for s in subnodes], json=request.json)
    with contextlib.ExitStack() as at_last:
        try:
            with RunDir(request.queue_file).claim(request.settings.mode) as claim:
                try:
                    life = _Life(request, subnodes, queue, claim, screen)
                    code = await life.run()
                finally:
                    # All is recorded. Once others see that the queue is free, Ctrl-C ends us.
                    at_last.enter_context(mortal())
        finally:
            # A reader who sleeps holds up nobody but us.
            screen.console.close()
    if life.report:
        with mortal(), contextlib.suppress(BrokenPipeError):
            print(life.report, flush=True)
    return code


def _read_hosts(path: Path) -> tuple[SubNode, ...]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        what = "no such file; list your nodes there, or name another file with --hosts-file"
        raise BadInput(Place(str(path)), what) from None
    except IsADirectoryError:
        raise BadInput(Place(str(path)), "this is a directory; name a file with --hosts-file") from None
    except OSError as error:
        raise StorageError(path, f"{error.strerror}; make it readable") from error
    return parse_hosts(data, str(path))


class _Life:
    def __init__(
        self,
        request: Request,
        subnodes: tuple[SubNode, ...],
        queue: QueueFile,
        claim: Claim,
        screen: Screen,
    ) -> None:
        self.report = ""
        """The summary as JSON, once there is one."""
        self._request = request
        self._subnodes = subnodes
        self._queue = queue
        self._claim = claim
        self._screen = screen
        self._local = LocalConnector()
        self._ssh = request.connector or SshConnector(accept_new=request.accept_new)

    async def run(self) -> ExitCode:
        run_dir = RunDir(self._request.queue_file)
        tell = self._screen.tell
        if not self._claim.is_hard:
            tell(
                Note(
                    "this file system has no real locks: a killed controller's claim must be removed by hand"
                )
            )
        with Ledger.open(run_dir.ledger) as ledger:
            epoch = ledger.begin_run(self._request.settings.mode, "")
            if not await mend_queue(self._queue, ledger.last_pops(), self._claim.control, tell):
                ledger.end_run(Outcome.STOPPED)
                return ExitCode.STOPPED
            stores = Stores(self._queue, ledger, LogFiles(run_dir.logs))
            if epoch == 1:
                stores.logs.clear()
            stores.logs.begin(ledger.open_attempts())
            state, engine, past = self._prepare(stores)
            outcome = await self._drive(state, engine, past, stores, epoch)
            try:
                ledger.end_run(outcome)
            except StorageError as error:
                tell(Note(f"{error}; the end of this run is not recorded", warning=True))
        return self._sum_up(state, outcome, engine, past)

    def _prepare(self, stores: Stores) -> tuple[State, Engine, Past]:
        ledger, settings = stores.ledger, self._request.settings
        past = take_up(ledger, self._subnodes, time.time())
        state = new_state(settings, self._subnodes, past.collectors)
        if past.began:
            self._screen.tell(
                Note(f"taking up {counted(len(past.began), 'job')} that an earlier run left open")
            )
        everywhere = {s.name: s for s in (*self._subnodes, *past.collectors)}
        rounds = ledger.last_round if settings.mode is Mode.BROADCAST else 0
        taker = Taker(self._queue, everywhere, ledger.queue_id, ledger.next_job_id, rounds)
        return state, Engine(state, taker, stores, self._screen.tell, past.facts), past

    async def _drive(self, state: State, engine: Engine, past: Past, stores: Stores, epoch: int) -> Outcome:
        sweeper = Sweeper(
            past.leftovers,
            stores.logs,
            grace=self._request.grace,
            flush=engine.flush_logs,
            cleared=engine.cleared,
            tell=self._screen.tell,
        )
        plant = Plant(
            connector=self._connector,
            queue_id=stores.ledger.queue_id,
            epoch=epoch,
            grace=self._request.grace,
            logs=stores.logs,
            flush=engine.flush_logs,
            fact=StartLine(state.seats, engine.fact),
            tell=self._screen.tell,
            backlog=self._screen.backlog,
            overtaken=engine.overtaken,
            crashed=engine.crashed,
            cleared=engine.cleared,
            expects=lambda name: bool(state.seats[name].live),
            sweep=sweeper.sweep,
            began=past.began,
        )
        engine.links = {name: Link(seat.subnode, plant) for name, seat in state.seats.items()}
        keeping = [
            asyncio.create_task(engine.guard(link.keep()), name=f"link {name}")
            for name, link in engine.links.items()
        ]
        control = Control(engine, self._claim.control, self._screen.tell)
        control.start()
        try:
            outcome = await engine.run()
            with contextlib.suppress(TimeoutError, StorageError):
                # One directory may be that of many sub-nodes, and of nodes that share a home. The ledger also knows
                # what was recorded too late to be sent.
                for_good = not stores.ledger.open_attempts()
                async with asyncio.timeout(LEAVE_WITHIN):
                    await asyncio.gather(
                        *(
                            link.leave(state.seats[name].ghosts, for_good=for_good)
                            for name, link in engine.links.items()
                        )
                    )
            return outcome
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
            stores.logs.close_all()
            await engine.close()
            await control.close()

    def _connector(self, subnode: SubNode) -> Connector:
        return self._local if subnode.is_local else self._ssh

    # --- the end -------------------------------------------------------------------------------------------

    def _sum_up(self, state: State, outcome: Outcome, engine: Engine, past: Past) -> ExitCode:
        summary = self._screen.summary
        summary.open = len(state.seat_of)
        summary.wait_for({waiting.job.id for waiting in (*state.waiting.values(), *state.ready)})
        left = _left(self._queue)
        summary.not_started = left
        if outcome is Outcome.NO_NODES and state.ever_up and state.settings.require_all and not state.started:
            self._screen.tell(Note(_NOT_ALL, warning=True))
        elif outcome in _SAY:
            self._screen.tell(Note(_SAY[outcome], warning=True))
        code = _exit_code(summary, state, outcome, left)
        is_left = engine.output_left or past.leftovers.are_left
        if engine.storage_failed or (code is ExitCode.OK and is_left):
            code = ExitCode.STORAGE
        if self._request.json:
            self.report = json.dumps({**summary.as_dict(), "outcome": outcome, "exit_code": int(code)})
        else:
            self._screen.console.report(summary.render)
        return code


def _left(queue: QueueFile) -> int | None:
    """How many jobs are left in the queue; None when it cannot be read."""
    try:
        return sum(entry.size for entry in queue.entries())
    except PegasusError:
        return None


def _exit_code(summary: Summary, state: State, outcome: Outcome, left: int | None) -> ExitCode:
    missed = state.settings.mode is Mode.BROADCAST and bool(summary.set_aside)
    if outcome is Outcome.NO_NODES and not summary.failed:
        return ExitCode.NO_NODES
    if summary.failed or outcome is Outcome.ABORTED or missed:
        return ExitCode.JOBS_FAILED
    if summary.queue_error:
        return ExitCode.STORAGE if summary.storage_failed else ExitCode.BAD_INPUT
    rest = left or left is None or summary.open or summary.waiting
    if outcome in (Outcome.STOPPED, Outcome.LEFT) and rest:
        return ExitCode.STOPPED
    return ExitCode.JOBS_FAILED if summary.open else ExitCode.OK
