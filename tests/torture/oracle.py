"""The judge: compares what the jobs themselves have told with what Pegasus says, and names every difference.

It knows Pegasus's files only as any user could: YAML read by PyYAML, the ledger read by SQLite.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import procs
from tests.torture.plan import Plan, number_of, numbers_in
from tests.torture.world import World

SHOWN = 12
"""Differences that a failure names."""


@dataclass(slots=True)
class Verdict:
    """`wrong` is empty if every promise was kept; the rest is what there was to judge."""

    wrong: list[str] = field(default_factory=list)
    starts: int = 0
    jobs: int = 0
    lost: int = 0
    retried: int = 0

    def __str__(self) -> str:
        text = f"{self.jobs} jobs, {self.starts} starts, {self.lost} lost, {self.retried} retried"
        shown = "".join(f"\n  - {line}" for line in self.wrong[:SHOWN])
        return f"{text}; {len(self.wrong)} things wrong{shown}" if self.wrong else text


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job as the ledger has it, with its last attempt."""

    id: int
    number: int
    state: str
    subnode: str
    attempts: int
    status: int | None


def judge(
    world: World, *plans: Plan, may_lose: bool = False, retries: int = 0, ended: bool = True
) -> Verdict:
    """Raise AssertionError unless every promise was kept; for a world whose last run has come to its end.

    `plans`: what was to run (the world's own). `may_lose`: jobs may be lost (nodes were rebooted); then they may have
    started or not. `retries`: how often a job may have been tried again. `ended`: nothing may be left in the queue.
    """
    verdict = Verdict()
    tasks = {n: t for plan in plans or (world.plan,) for n, t in plan.tasks.items()}
    whole = Plan(tasks, "", tuple(c for plan in plans or (world.plan,) for c in plan.comments))
    jobs, queue_id = _ledger(world)
    verdict.jobs = len(jobs)
    _starts(world, verdict, whole, jobs, queue_id, retries)
    _ends(world, verdict, whole, jobs, may_lose, retries)
    _files(world, verdict, whole, ended)
    _nodes(world, verdict)
    _disk(world, verdict)
    assert not verdict.wrong, f"{verdict}\nthe last run said:\n{_last_words(world)}"
    return verdict


def look(world: World, *plans: Plan) -> list[int]:
    """For any moment: queue.yaml is a whole old or new one, and the tasks left are the last of those there were.

    Returns them. AssertionError if not.
    """
    order = [n for plan in plans or (world.plan,) for n in plan.order]
    text = world.queue.read_text()
    try:
        left = numbers_in(text)
    except Exception as error:
        raise AssertionError(f"queue.yaml cannot be read any more: {error}\n{text[:2000]}") from error
    assert left == order[len(order) - len(left) :], (
        f"queue.yaml is neither old nor new; it has {left[:20]} ..."
    )
    return left


def _ledger(world: World) -> tuple[dict[int, JobLine], str]:
    with closing(sqlite3.connect(f"file:{world.state / 'ledger.db'}?mode=ro", uri=True)) as db:
        [(check,)] = db.execute("PRAGMA integrity_check").fetchall()
        assert check == "ok", f"the ledger is damaged: {check}"
        [(queue_id,)] = db.execute("SELECT queue_id FROM self").fetchall()
        rows = db.execute(
            "SELECT job.id, command, job.state, job.subnode, attempts, attempt.status FROM job "
            "LEFT JOIN attempt ON attempt.job = job.id AND attempt.number = attempts"
        ).fetchall()
    return {id_: JobLine(id_, number_of(command), *rest) for id_, command, *rest in rows}, queue_id


def _starts(
    world: World, verdict: Verdict, plan: Plan, jobs: dict[int, JobLine], queue_id: str, retries: int
) -> None:
    """Nothing twice: what the jobs have told."""
    attempts: Counter[str] = Counter()
    per_task: dict[tuple[int, str], list[str]] = defaultdict(list)
    for attempt, number, subnode, _node in world.starts():
        verdict.starts += 1
        attempts[attempt] += 1
        job_id, _, queue = attempt.split(".")
        job = jobs.get(int(job_id))
        if queue != queue_id or job is None:
            verdict.wrong.append(f"task {number} was started as {attempt}, which the ledger does not know")
        elif job.number != number:
            verdict.wrong.append(f"attempt {attempt} ran task {number}, the ledger says {job.number}")
        per_task[number, subnode if world.mode == "b" else ""].append(attempt)
    for attempt, count in attempts.items():
        if count > 1:
            verdict.wrong.append(f"attempt {attempt} was started {count} times")
    for (number, where), ids in per_task.items():
        verdict.retried += len(ids) > 1
        if len({i.split(".")[0] for i in ids}) > 1:
            verdict.wrong.append(f"task {number} {where} was started as several jobs: {ids}")
        elif len(ids) > 1 + retries:
            verdict.wrong.append(f"task {number} {where} was started {len(ids)} times: {ids}")
    for number in {number for number, _ in per_task} - set(plan.tasks):
        verdict.wrong.append(f"task {number} was started and never asked for")


def _ends(
    world: World, verdict: Verdict, plan: Plan, jobs: dict[int, JobLine], may_lose: bool, retries: int
) -> None:
    """Nothing lost: each task is one job (in broadcast mode one for each sub-node) with its true end and output."""
    started = {(number, attempt.split(".")[0]) for attempt, number, _, _ in world.starts()}
    found: dict[tuple[int, str], list[int]] = defaultdict(list)
    for job in jobs.values():
        found[job.number, job.subnode if world.mode == "b" else ""].append(job.id)
        task = plan.tasks.get(job.number)
        if task is None:
            verdict.wrong.append(f"job {job.id} is task {job.number}, which was never asked for")
            continue
        if job.state == "lost":
            verdict.lost += 1
            if not may_lose:
                verdict.wrong.append(f"job {job.id} (task {job.number}) is lost")
            continue
        if (job.number, str(job.id)) not in started:
            verdict.wrong.append(f"job {job.id} (task {job.number}) is {job.state} and was never started")
        expected = "succeeded" if task.status == 0 else "failed"
        if (job.state, job.status) != (expected, task.status):
            verdict.wrong.append(
                f"job {job.id} (task {job.number}) is {job.state} with status {job.status}, not {task.status}"
            )
        path = world.state / "logs" / f"{job.id}.{job.attempts}.log"
        output = path.read_bytes() if path.exists() else b""
        if output != task.output:
            verdict.wrong.append(f"{path.name} (task {job.number}): {_difference(output, task.output)}")
    wheres = world.subnodes if world.mode == "b" else [""]
    for number in plan.tasks:
        for where in wheres:
            if len(found[number, where]) != 1:
                verdict.wrong.append(
                    f"task {number} {where} is {len(found[number, where])} jobs in the ledger"
                )


def _files(world: World, verdict: Verdict, plan: Plan, ended: bool) -> None:
    consumed = world.consumed.read_text() if world.consumed.exists() else ""
    counts = Counter(numbers_in(consumed))
    left = numbers_in(world.queue.read_text())
    for number in plan.tasks:
        in_queue = left.count(number)
        if counts[number] + in_queue != 1 or (ended and in_queue):
            verdict.wrong.append(
                f"task {number} is {counts[number]} times in consumed.yaml and {in_queue} times in queue.yaml"
            )
    if ended:
        lines = [line for line in world.queue.read_text().splitlines() if line.strip()]
        missing = [c for c in plan.comments if lines.count(c) != 1]
        if missing:
            verdict.wrong.append(f"comments of the user's are not there once: {missing[:5]}")
        if more := [line for line in lines if line not in plan.comments]:
            verdict.wrong.append(f"left in queue.yaml: {more[:5]}")


def _nodes(world: World, verdict: Verdict) -> None:
    """No process and no file is left."""
    try:
        procs.wait_until(lambda: not world.processes(), "processes of the nodes to end", 10)
    except AssertionError:
        verdict.wrong.append(f"processes left: {[procs.command_of(p) for p in world.processes()]}")
    if left := world.spools():
        verdict.wrong.append(f"{len(left)} files left in spools: {[str(p) for p in left[:6]]}")


def _disk(world: World, verdict: Verdict) -> None:
    """The controller's directory: nothing temporary is left, modes are tight."""
    known = {"queue.yaml", "hosts.yaml", "consumed.yaml", "queue.yaml.lock", ".pegasus", "lost+found"}
    if strange := [p.name for p in world.dir.iterdir() if p.name not in known]:
        verdict.wrong.append(f"left beside the queue: {strange}")
    for path in (world.dir / ".pegasus", world.state):
        if path.stat().st_mode & 0o777 != 0o700:
            verdict.wrong.append(f"{path} has mode {path.stat().st_mode & 0o777:o}")


def _difference(found: bytes, wanted: bytes) -> str:
    at = next(
        (k for k, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b),
        min(len(found), len(wanted)),
    )
    return f"{len(found)} bytes, not {len(wanted)}; they differ from byte {at}: {found[at : at + 40]!r}"


def _last_words(world: World) -> str:
    return "\n".join(
        f"[run {n}, exit {c.ended}] {c.text[-600:]}" for n, c in list(enumerate(world.controllers, 1))[-3:]
    )


def evidence(world: World) -> Path:
    """Where what is needed to look into a failure has been kept."""
    to = world.root.with_name(world.root.name + "-evidence")
    world.keep_evidence(to)
    return to
