"""What go-jobqueue does wrong with two at work, and we do not; the numbers are those of the page for its users.

docs/from-go-jobqueue.md has for each known bug the tests that show it absent. Here are those which need two who come
to one row at the same moment: both wait for it, and then go on, one right after the other.
"""

import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from psycopg import sql

from jobqueue.bundle import JobBundle, JobDesc
from jobqueue.models import Job
from jobqueue.outcomes import Claimant, Outcome, RunError
from tests.fixtures.stores import (
    START,
    Connection,
    assert_counts_true,
    claim,
    claim_one,
    counts_of,
    fetch_all,
    make_bundle,
    row_of,
)
from tests.fixtures.waiting import wait_until

PAGE: Final = Path(__file__).parents[2] / "docs" / "from-go-jobqueue.md"
WAITING: Final = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
ERROR: Final = RunError(message="broken")
MORTAL: Final = Claimant(name="dead:1:thread", lease=timedelta(milliseconds=1))
SECOND: Final = timedelta(seconds=1)


@pytest.fixture
def queue_up(db: Connection, other_db: Connection) -> Callable[..., list[Any]]:
    """Have all acts wait for the row of a job, or of a bundle, in their order, before the first of them may go on."""

    def waiting() -> int:
        return int(fetch_all(other_db, WAITING)[0])

    def queue_up(row: Job | JobBundle, *acts: Callable[[], Any]) -> list[Any]:
        table = sql.Identifier("job" if isinstance(row, Job) else "job_bundle")
        laters: list[Future[Any]] = []
        with ThreadPoolExecutor(len(acts)) as executor:
            with db.transaction():
                db.execute(sql.SQL("select from worker.{} where id = %s for update").format(table), [row.id])
                for number, act in enumerate(acts, start=1):
                    laters.append(executor.submit(act))
                    wait_until(lambda number=number: waiting() + sum(later.done() for later in laters) == number)
            return [later.result(30) for later in laters]

    return queue_up


def test_1_who_lost_his_claim_overwrites_nothing(store, worker_store, clock, db, queue_up):
    """1: Of two who believe to run a job, and finish it at once, only the one who owns it has finished it."""
    bundle = make_bundle(1, on_stopped=JobDesc(1, type="after"))
    store.add_bundle(bundle)
    [stale] = worker_store.claim_jobs(["t"], 1, MORTAL)
    clock.advance(SECOND)
    assert len(worker_store.reap_jobs(MORTAL.lease, 3)) == 1
    owned = claim_one(worker_store, ["t"])
    saved = queue_up(
        owned,
        lambda: worker_store.save_outcomes([Outcome.failed(stale, ERROR)]),
        lambda: worker_store.save_outcomes([Outcome.finished(owned, '"owner"')]),
        lambda: worker_store.save_outcomes([Outcome.finished(stale, '"stale"')]),
    )
    assert saved == [set(), {owned.id}, set()]
    row = row_of(db, owned.id)
    assert (row["result"], row["error_msg"], row["run_count"]) == ("owner", None, 1)
    assert counts_of(db, bundle.id) == (1, 1, True)
    assert store.get_status().by_type["after"] == 1


@pytest.mark.parametrize("outcome", [Outcome.finished, lambda job: Outcome.failed(job, ERROR)])
def test_2_an_end_that_comes_twice_counts_once(store, worker_store, db, queue_up, outcome):
    """2: The same end, sent twice at once, is saved and counted once: the bundle goes on waiting for its other job."""
    bundle = make_bundle(2)
    store.add_bundle(bundle)
    job, _ = claim(worker_store, 2)
    saved = queue_up(job, *[lambda: worker_store.save_outcomes([outcome(job)])] * 2)
    assert saved == [{job.id}, set()]
    assert counts_of(db, bundle.id) == (2, 1, False)


def test_3_a_reset_beside_a_finish_counts_neither_too_much(store, worker_store, db, queue_up):
    """3: A job that is finished right before, or right after, it is reset waits again, and is not counted."""
    for order in (1, -1):
        bundle = make_bundle(2)
        store.add_bundle(bundle)
        job, _ = claim(worker_store, 2)
        acts = [
            lambda job=job: worker_store.save_outcomes([Outcome.finished(job)]),
            lambda job=job: store.reset_jobs([job.id]),
        ]
        saved, was_reset = queue_up(job, *acts[::order])[::order]
        assert (saved, was_reset) == ({job.id} if order == 1 else set(), {job.id})
        assert counts_of(db, bundle.id) == (2, 0, False)
        assert_counts_true(db)
        store.delete_job_bundles([bundle.id])


def test_4_two_resets_of_a_job_count_once(store, worker_store, db, queue_up):
    """4: A finished job that two reset at once is taken out of the count once, and its bundle can complete again."""
    bundle = make_bundle(2, on_stopped=JobDesc(1, type="after"))
    store.add_bundle(bundle)
    jobs = claim(worker_store, 2)
    worker_store.save_outcomes([Outcome.finished(job) for job in jobs])
    queue_up(jobs[0], *[lambda: store.reset_jobs([jobs[0].id])] * 2)
    assert counts_of(db, bundle.id) == (2, 1, False)
    worker_store.save_outcomes([Outcome.finished(claim_one(worker_store, ["t"]))])
    assert counts_of(db, bundle.id) == (2, 2, True)
    assert store.get_status().by_type["after"] == 2


@pytest.mark.parametrize(
    "move",
    [
        lambda store, workers, job: store.reschedule_job(job.id, START),
        lambda store, workers, job: bool(workers.save_outcomes([Outcome.retry(job, ERROR)])),
    ],
    ids=["reschedule", "retry"],
)
def test_6_what_has_been_counted_is_not_moved(store, worker_store, db, queue_up, move):
    """6: A member that stops right before somebody moves it to another time has stopped, and stays counted."""
    bundle = make_bundle(1)
    store.add_bundle(bundle)
    job = claim_one(worker_store)
    saved, moved = queue_up(
        job, lambda: worker_store.save_outcomes([Outcome.finished(job)]), lambda: move(store, worker_store, job)
    )
    assert (saved, moved) == ({job.id}, False)
    assert row_of(db, job.id)["stopped_at"] is not None
    assert counts_of(db, bundle.id) == (1, 1, True)


def test_7_deleting_members_beside_a_finish_completes(store, worker_store, db, queue_up):
    """7: A bundle of which two members are deleted while the third is finished completes, whoever comes last."""
    for order in (1, -1):
        bundle = make_bundle(3, on_stopped=JobDesc(1, type=f"after {order}"))
        store.add_bundle(bundle)
        job, *others = claim(worker_store, 3)
        acts = [
            lambda job=job: worker_store.save_outcomes([Outcome.finished(job)]),
            lambda others=others: store.delete_jobs(other.id for other in others),
        ]
        queue_up(bundle, *acts[::order])
        assert counts_of(db, bundle.id) == (1, 1, True)
        assert store.get_status().by_type[f"after {order}"] == 1


def test_every_known_bug_is_numbered_and_shown():
    """The page numbers the known bugs from 1 on, as they are numbered here, and names a test for each of them."""
    table = PAGE.read_text(encoding="utf-8").partition("## Known bugs of go-jobqueue")[2]
    rows = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", table, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == [*range(1, 36)]
    shown = {int(number): re.findall(r"\[(test_\w+)\]\(\.\./tests/", tests) for number, _, tests in rows}
    assert [number for number, tests in shown.items() if not tests] == []
    here = {int(name.split("_")[1]): name for name in globals() if re.match(r"test_\d+_", name)}
    assert {number: name for number, name in here.items() if name not in shown[number]} == {}
