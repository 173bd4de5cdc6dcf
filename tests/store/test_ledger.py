"""The ledger: what goes in comes out, after any crash, and only for the newest run."""

from __future__ import annotations

import errno
import fcntl
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegasus_py.core.model import Attempt, End, Job, JobOptions, JobState, Task
from pegasus_py.errors import Place, QueueHeld, StorageError
from pegasus_py.store import ledger_db
from pegasus_py.store.batch import Batch, Ended, Moved
from pegasus_py.store.ledger import Ledger

pytestmark = pytest.mark.usefixtures("local")

S = JobState


def job(number: int, command: str = "true", **values: object) -> Job:
    return Job(number, Task(command), command, "node-1", **values)  # type: ignore[arg-type]


def attempt(of: Job, ledger: Ledger, number: int = 1) -> Attempt:
    return Attempt(of, number, of.subnode, ledger.queue_id, "node-1.example", "/scratch/me")


def start(ledger: Ledger, *numbers: int) -> list[Attempt]:
    jobs = [job(number) for number in numbers]
    attempts = [attempt(j, ledger) for j in jobs]
    ledger.commit(Batch(jobs=jobs, started=attempts))
    return attempts


def ended(
    of: Attempt, state: JobState = S.SUCCEEDED, next_state: JobState | None = None, **values: float
) -> Ended:
    end = End(state, 0 if state is S.SUCCEEDED else 1)
    return Ended(of, end, next_state or state, values.get("due"), spooled=bool(values.get("spooled", 1)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


# ---- what goes in comes out


def test_an_open_attempt_comes_back_whole_after_the_controller_is_gone(path: Path) -> None:
    options = JobOptions(
        timeout=7200.0,
        retries=3,
        retry_on=(S.LOST, S.FAILED),
        cancel="docker kill {{ c }}",
        name="größe",
        lost_after=0.5,
    )
    params = (("bs", "0.10"), ("no", "yes"), ("bs2", ""), ("x", "a\nb\u2028'\""))
    task = Task("dd bs={{ bs }}\nsync\n", params, options, Place("other.yaml", 17, 3))
    whole = Job(1, task, "dd bs=0.10\nsync\n", "node-1/gpu0", "docker kill 0.10", 4)
    with Ledger.open(path) as ledger:
        ledger.begin_run("broadcast")
        started = attempt(whole, ledger)
        ledger.commit(Batch(jobs=[whole], started=[started], pop=b"\x00pop\xff"))
    with Ledger.open(path, create=False) as ledger:
        assert ledger.open_attempts() == [started]
        (back,) = ledger.open_attempts()
        assert back.job.task.place.file == "other.yaml"
        assert back.job.task.place.line == 17
        assert ledger.last_pops() == [b"\x00pop\xff"]
        assert ledger.queue_id == started.queue_id
        assert ledger.next_job_id == 2


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
durations = st.none() | st.floats(0, 1e9)
some_options = st.builds(
    JobOptions,
    timeout=durations,
    retries=st.none() | st.integers(0, 99),
    retry_delay=durations,
    retry_on=st.none() | st.lists(st.sampled_from([S.LOST, S.FAILED, S.TIMED_OUT])).map(tuple),
    lost_after=durations,
    cancel=st.none() | texts,
    name=st.none() | texts,
)
some_tasks = st.builds(
    Task,
    command=texts,
    params=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    options=some_options,
    place=st.builds(Place, texts, st.integers(0, 10**6)),
)
some_ends = st.builds(
    End,
    state=st.sampled_from([s for s in S if s.is_end]),
    status=st.none() | st.integers(0, 255),
    reason=texts,
    duration=st.none() | st.floats(0, 1e9),
    survivors=st.lists(texts, max_size=3).map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(some_tasks, texts, texts, st.none() | texts, st.none() | st.integers(0, 9)), max_size=5
    ),
    st.data(),
)
def test_any_job_and_any_end_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[Task, str, str, str, int]], data: st.DataObject
) -> None:
    jobs = [Job(n, *values) for n, values in enumerate(made, 1)]
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    with Ledger.open(path, ballast=0) as ledger:
        ledger.begin_run("queue")
        started = [Attempt(j, 1, j.subnode, ledger.queue_id, "h", None) for j in jobs]
        ledger.commit(Batch(jobs=jobs, started=started))
        assert ledger.open_attempts() == started
        assert [a.job.task.place for a in ledger.open_attempts()] == [j.task.place for j in jobs]
        ends = [data.draw(some_ends) for _ in jobs]
        ledger.commit(Batch(ended=[Ended(a, e, e.state) for a, e in zip(started, ends, strict=True)]))
        assert ledger.open_attempts() == []
        assert [ledger.attempts(j.id)[0].end for j in jobs] == ends
        assert [row.end for row in reversed(ledger.jobs())] == ends
        assert [row.state for row in reversed(ledger.jobs())] == [e.state for e in ends]


def test_a_retry_waits_with_its_count_and_due_time_and_starts_elsewhere(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.begin_run("queue")
        (first,) = start(ledger, 1)
        ledger.commit(Batch(ended=[ended(first, S.FAILED, S.QUEUED, due=1234.5)]))
        assert ledger.waiting_jobs() == [(first.job, 1, 1234.5)]
        assert ledger.counts() == {S.QUEUED: 1}
        moved = Job(1, first.job.task, "true on node-2", "node-2", "cancel it")
        second = attempt(moved, ledger, 2)
        ledger.commit(Batch(started=[second]))
        assert ledger.waiting_jobs() == []
        assert ledger.open_attempts() == [second]
        ledger.commit(Batch(ended=[ended(second)]))
        assert [row.end.state for row in ledger.attempts(1) if row.end] == [S.FAILED, S.SUCCEEDED]
        assert ledger.jobs()[0].number == 2
        assert ledger.jobs()[0].job.subnode == "node-2"


def test_a_job_known_without_an_attempt_waits(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.begin_run("queue")
        ledger.commit(Batch(jobs=[job(1), job(2)]))
        assert ledger.waiting_jobs() == [(job(1), 0, 0.0), (job(2), 0, 0.0)]
        ledger.commit(Batch(moved=[Moved(1, S.CANCELLED), Moved(2, S.QUEUED, 99.0)]))
        assert ledger.waiting_jobs() == [(job(2), 0, 99.0)]
        assert ledger.counts() == {S.CANCELLED: 1, S.QUEUED: 1}


def test_an_attempt_is_uncleared_from_its_end_until_its_spool_is_gone(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.begin_run("queue")
        one, two, three = start(ledger, 1, 2, 3)
        assert ledger.uncleared() == []
        ledger.set_cleared([one.id])
        ledger.commit(Batch(ended=[ended(one), ended(two), ended(three, spooled=0)]))
        assert ledger.uncleared() == [one, two]
        ledger.commit(Batch(cleared=[one.id]))
        assert ledger.uncleared() == [two]
        ledger.set_cleared([two.id])
        assert ledger.uncleared() == []


def test_the_first_end_of_an_attempt_stays(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.begin_run("queue")
        (one,) = start(ledger, 1)
        ledger.commit(Batch(ended=[ended(one, S.LOST)]))
        ledger.commit(Batch(ended=[ended(one, S.SUCCEEDED)]))
        assert [row.end for row in ledger.attempts(1)] == [End(S.LOST, 1)]
        assert ledger.counts() == {S.LOST: 1}


def test_jobs_are_chosen_by_state_id_run_and_number(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.begin_run("queue")
        one, two, *_ = start(ledger, 1, 2, 3)
        ledger.commit(Batch(ended=[ended(one), ended(two, S.FAILED)]))
        second = ledger.begin_run("queue")
        start(ledger, 4)

        def ids(rows: list[object]) -> list[int]:
            return [row.job.id for row in rows]  # type: ignore[attr-defined]

        assert ids([*ledger.jobs()]) == [4, 3, 2, 1]
        assert ids([*ledger.jobs(limit=2)]) == [4, 3]
        assert ids([*ledger.jobs([S.FAILED, S.SUCCEEDED])]) == [2, 1]
        assert ids([*ledger.jobs([S.FAILED, S.STARTING])]) == [4, 3, 2]
        assert ids([*ledger.jobs([])]) == []
        assert ids([*ledger.jobs(ids=[3, 1, 77])]) == [3, 1]
        assert ids([*ledger.jobs(run=second)]) == [4]
        assert ids([*ledger.jobs([S.SUCCEEDED], ids=[1, 2], run=1)]) == [1]
        assert ledger.counts() == {S.SUCCEEDED: 1, S.FAILED: 1, S.STARTING: 2}


def test_runs_are_counted_up_and_say_how_they_ended(path: Path) -> None:
    with Ledger.open(path) as ledger:
        assert ledger.begin_run("queue", "first") == 1
        ledger.end_run("stopped")
        assert ledger.begin_run("broadcast") == 2
        newest, first = ledger.runs()
        assert (newest.epoch, newest.mode, newest.ended, newest.result) == (2, "broadcast", None, None)
        assert (first.note, first.result) == ("first", "stopped")
        assert first.ended is not None and first.ended >= first.began


# ---- all or nothing, and only for the newest run


def test_a_batch_that_cannot_be_recorded_leaves_nothing(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.begin_run("queue")
        (one,) = start(ledger, 1)
        with pytest.raises(StorageError, match="UNIQUE"):
            ledger.commit(Batch(jobs=[job(2), job(1)], ended=[ended(one)], pop=b"new"))
        assert ledger.open_attempts() == [one]
        assert ledger.next_job_id == 2
        assert ledger.last_pops() == []


def test_the_records_of_pops_are_kept_until_one_does_not_follow(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.begin_run("queue")
        ledger.commit(Batch(pop=b"one"))
        ledger.commit(Batch(pop=b"two", pop_follows=True))
        start(ledger, 1)
        with pytest.raises(StorageError, match="UNIQUE"):
            ledger.commit(Batch(jobs=[job(1)], pop=b"refused"))
        ledger.commit(Batch(pop=b"three", pop_follows=True))
        assert ledger.last_pops() == [b"one", b"two", b"three"]
    with Ledger.open(path) as ledger:
        assert ledger.last_pops() == [b"one", b"two", b"three"]
        ledger.begin_run("queue")
        ledger.commit(Batch(pop=b"four"))
        assert ledger.last_pops() == [b"four"]


@pytest.mark.parametrize("pop", [None, b"\x00pop\xff"])
def test_a_ledger_of_format_1_is_read_and_taken_over(path: Path, pop: bytes | None) -> None:
    with Ledger.open(path) as ledger:
        ledger.begin_run("queue")
        (one,) = start(ledger, 1)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE pop")
        db.execute("ALTER TABLE self ADD COLUMN pop BLOB")
        db.execute("UPDATE self SET pop = ?", (pop,))
        db.execute("PRAGMA user_version = 1")
    with Ledger.open(path, create=False) as ledger:
        assert ledger.open_attempts() == [one]
    for _ in range(2):
        with Ledger.open(path) as ledger:
            assert ledger.last_pops() == ([] if pop is None else [pop])
            assert ledger.open_attempts() == [one]
            assert ledger.begin_run("queue") > 1
    with Ledger.open(path) as ledger:
        ledger.begin_run("queue")
        ledger.commit(Batch(pop=b"next", ended=[ended(one)]))
        assert ledger.last_pops() == [b"next"]


def test_what_jobs_share_is_not_lost_with_the_batch_that_first_had_it(path: Path) -> None:
    shared = Task("echo {{ x }}", (("x", "1"),), JobOptions(retries=2))
    with Ledger.open(path) as ledger:
        ledger.begin_run("queue")
        with pytest.raises(StorageError):
            ledger.commit(Batch(jobs=[Job(1, shared, "echo 1", "a"), Job(1, shared, "echo 1", "a")]))
        ledger.commit(Batch(jobs=[Job(1, shared, "echo 1", "a")]))
        assert ledger.waiting_jobs()[0][0].task == shared


def test_an_overtaken_controller_records_nothing_more(path: Path) -> None:
    with Ledger.open(path) as paused, Ledger.open(path) as newer:
        paused.begin_run("queue")
        (one,) = start(paused, 1)
        newer.begin_run("queue")
        for batch in (
            Batch(jobs=[job(2)], started=[attempt(job(2), paused)]),
            Batch(ended=[ended(one)]),
            Batch(pop=b"x"),
            Batch(cleared=[one.id]),
        ):
            with pytest.raises(QueueHeld, match=r"overtaken.*run 2"):
                paused.commit(batch)
        with pytest.raises(QueueHeld):
            paused.end_run()
        assert newer.open_attempts() == [one]
        assert newer.next_job_id == 2
        start(newer, 2)


def test_nothing_is_recorded_outside_a_run(path: Path) -> None:
    with Ledger.open(path) as ledger:
        with pytest.raises(QueueHeld, match="not begun"):
            start(ledger, 1)
        ledger.begin_run("queue")
        ledger.end_run()
        with pytest.raises(QueueHeld, match="ended"):
            start(ledger, 1)


# ---- the file


def test_the_files_are_for_their_owner_alone_and_one_at_rest(path: Path, local: bool) -> None:
    with Ledger.open(path) as ledger:
        ledger.begin_run("queue")
        start(ledger, 1)
        names = {file.name.removeprefix("ledger.db") for file in path.parent.iterdir()}
        assert names == ({"", "-locks", "-wal", "-shm"} if local else {"", "-locks", "-journal"})
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert not {file.name for file in path.parent.iterdir()} & {"ledger.db-wal", "ledger.db-shm"}
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    db.close()


def test_a_ledger_that_a_killed_controller_left_is_read_on_any_disk(
    tmp_path: Path, local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the log beside it, which a disk that others write too does not go on with."""
    kept, copy = tmp_path / "kept", tmp_path / "copy"
    kept.mkdir()
    with Ledger.open(kept / "ledger.db") as ledger:
        ledger.begin_run("queue")
        start(ledger, 1, 2)
        shutil.copytree(kept, copy)
    with Ledger.open(copy / "ledger.db", create=False) as reader:
        assert len(reader.open_attempts()) == 2
    monkeypatch.setattr(ledger_db, "is_local", lambda directory: not local)
    with Ledger.open(copy / "ledger.db") as ledger:
        assert len(ledger.open_attempts()) == 2
        ledger.begin_run("queue")
        start(ledger, 3)
        with Ledger.open(copy / "ledger.db", create=False) as reader:
            assert len(reader.open_attempts()) == 3


def test_the_log_does_not_grow_with_the_work(path: Path, local: bool) -> None:
    sizes = []
    with Ledger.open(path) as ledger:
        ledger.begin_run("queue")
        before: list[Attempt] = []
        for number in range(1, 400):
            attempts = start(ledger, number)
            ledger.commit(Batch(ended=[ended(each) for each in before]))
            before = attempts
            sizes.append(sum(file.stat().st_size for file in path.parent.glob("ledger.db-*")))
    assert sizes[-1] == sizes[20]


def test_a_ledger_that_is_not_there_or_not_one_is_named(path: Path) -> None:
    with pytest.raises(StorageError, match="no ledger here"):
        Ledger.open(path, create=False)
    assert not path.exists()
    path.write_bytes(b"not SQLite at all, but long enough to be looked at" * 100)
    with pytest.raises(StorageError, match="not a ledger"):
        Ledger.open(path)
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t(x)")
    db.close()
    with pytest.raises(StorageError, match="not a ledger"):
        Ledger.open(path)


def test_a_ledger_of_a_newer_pegasus_is_left_alone(path: Path) -> None:
    Ledger.open(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StorageError, match=r"newer Pegasus.*upgrade"):
        Ledger.open(path)


def test_readers_read_while_the_controller_writes(path: Path) -> None:
    with Ledger.open(path) as ledger, Ledger.open(path, create=False) as reader:
        ledger.begin_run("queue")
        for number in range(1, 20):
            start(ledger, number)
            assert reader.counts() == {S.STARTING: number}


def test_without_locks_in_the_file_system_it_works_and_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lockf(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    locks = Path("/proc/locks")
    with Ledger.open(path) as ledger:
        assert not ledger.has_locks
        ledger.begin_run("queue")
        start(ledger, 1)
        ledger._db.execute("BEGIN IMMEDIATE")
        assert f":{path.stat().st_ino} " not in locks.read_text()
        ledger._db.execute("ROLLBACK")
        with Ledger.open(path, create=False) as reader:
            assert reader.counts() == {S.STARTING: 1}
            start(ledger, 9)
            assert reader.counts() == {S.STARTING: 2}
            ledger._db.execute("BEGIN IMMEDIATE")
            ledger._db.execute("UPDATE job SET state = 'lost'")
            assert reader.counts() == {S.STARTING: 2}
            ledger._db.execute("ROLLBACK")
        with Ledger.open(path) as newer:
            newer.begin_run("queue")
            with pytest.raises(QueueHeld, match="overtaken"):
                start(ledger, 2)


@pytest.mark.parametrize("read", ["open_attempts", "uncleared", "waiting_jobs", "next_job_id", "failed"])
def test_what_a_start_asks_does_not_look_at_every_job(path: Path, read: str) -> None:
    with Ledger.open(path) as ledger:
        asked: list[str] = []
        ledger._db.set_trace_callback(asked.append)
        if read == "failed":
            ledger.jobs([S.FAILED, S.LOST], limit=5)
        elif read == "next_job_id":
            assert ledger.next_job_id == 1
        else:
            getattr(ledger, read)()
        ledger._db.set_trace_callback(None)
        plan = [row[3] for row in ledger._db.execute(f"EXPLAIN QUERY PLAN {asked[0]}")]
        whole = [step for step in plan if step in ("SCAN job", "SCAN attempt", "SCAN spec")]
        assert not whole, plan


def test_the_end_of_an_attempt_says_nothing_of_a_job_that_has_the_next_one(path: Path) -> None:
    """Not even in the same commit."""
    with Ledger.open(path) as ledger:
        ledger.begin_run("queue")
        (first,) = start(ledger, 1)
        second = attempt(first.job, ledger, 2)
        ledger.commit(Batch(started=[second], ended=[ended(first, S.LOST, S.QUEUED)]))
        assert ledger.counts() == {S.STARTING: 1}
        assert ledger.waiting_jobs() == []
        assert ledger.open_attempts() == [second]
