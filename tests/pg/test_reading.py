"""Jobs and bundles are read through the service, whoever wrote the rows."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobqueue import (
    InvalidJobError,
    Job,
    JobBundleNotFoundError,
    JobDesc,
    JobNotFoundError,
    PayloadError,
    RawJSON,
    State,
)
from jobqueue.outcomes import Outcome
from jobqueue.queue_service import QueueService
from jobqueue.store import WorkerStore
from jobqueue_pg.store import PostgresStore
from tests.fixtures.stores import (
    Connection,
    add,
    claim_one,
    fetch_all,
    insert_job,
    make_bundle,
    make_job,
    row_of,
)

FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
PAST = datetime(2001, 1, 1, tzinfo=UTC)

# What makes a row of each state, and of the borders between them.
ROWS: list[tuple[State, dict[str, Any]]] = [
    (State.AVAILABLE, {}),
    (State.AVAILABLE, {"start_at": PAST}),
    (State.AVAILABLE, {"start_at": "-infinity"}),
    (State.AVAILABLE, {"created_at": "infinity"}),
    (State.AVAILABLE, {"error_msg": "left behind"}),
    (State.SCHEDULED, {"start_at": FUTURE}),
    (State.SCHEDULED, {"start_at": "infinity"}),
    (State.RETRYING, {"run_count": 1}),
    (State.RETRYING, {"run_count": 1, "start_at": FUTURE}),
    (State.RUNNING, {"started_at": PAST}),
    (State.RUNNING, {"started_at": PAST, "run_count": 3, "start_at": FUTURE}),
    (State.RUNNING, {"started_at": PAST, "error_msg": "left behind"}),
    (State.SUCCEEDED, {"started_at": PAST, "stopped_at": PAST}),
    (State.SUCCEEDED, {"stopped_at": PAST}),
    (State.FAILED, {"started_at": PAST, "stopped_at": PAST, "error_msg": "broken"}),
    (State.FAILED, {"started_at": PAST, "stopped_at": PAST, "error_msg": ""}),
    (State.FAILED, {"started_at": PAST, "stopped_at": PAST, "error_msg": "x", "max_retry_count": 2}),
    (State.CANCELLED, {"started_at": PAST, "stopped_at": PAST, "error_msg": "cancelled", "cancelled_at": PAST}),
    (State.CANCELLED, {"cancelled_at": PAST}),
]


# --- one


def test_get_job(service: QueueService) -> None:
    """A job is read with all of its columns, its moments aware and in UTC."""
    added = service.enqueue("t", {"a": 1}, priority=3, max_retry_count=2, start_at=FUTURE)
    job = service.get_job(added.id)
    assert job == added
    assert (job.type, job.payload, job.priority, job.max_retry_count, job.start_at) == ("t", {"a": 1}, 3, 2, FUTURE)
    assert job.created_at == job.updated_at
    assert job.created_at is not None
    assert job.created_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - job.created_at) < timedelta(minutes=1)


@pytest.mark.parametrize("method", ["get_job", "reset_job", "delete_job"])
def test_unknown_job(service: QueueService, method: str) -> None:
    """An unknown id is a JobNotFoundError, a LookupError too, that names it and an uncommitted transaction."""
    id = uuid4()
    with pytest.raises(JobNotFoundError, match=rf"{id}.*transaction") as caught:
        getattr(service, method)(id)
    assert caught.value.job_id == id
    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize("method", ["get_job_bundle", "delete_job_bundle"])
def test_unknown_bundle(service: QueueService, method: str) -> None:
    """An unknown id of a bundle is a JobBundleNotFoundError that names it; a job's id is unknown, too."""
    for id in (uuid4(), service.enqueue("t", 1).id):
        with pytest.raises(JobBundleNotFoundError, match=str(id)) as caught:
            getattr(service, method)(id)
        assert caught.value.bundle_id == id


@pytest.mark.parametrize("method", ["get_job", "reset_job", "delete_job", "get_job_bundle", "delete_job_bundle"])
@pytest.mark.parametrize("wrong", [None, 1, "01a2012a-c1cd-7641-9fbf-e7d3ab8bdcfd"], ids=repr)
def test_what_is_no_id(service: QueueService, method: str, wrong: Any) -> None:
    """An id that is no UUID, not even one as text, is refused by name."""
    with pytest.raises(InvalidJobError, match=type(wrong).__name__):
        getattr(service, method)(wrong)


def test_job_of_an_uncommitted_transaction(service: QueueService, db: Connection) -> None:
    """A job that was added in a transaction is not there until that commits."""
    with db.transaction():
        job = service.enqueue("t", 1, connection=db)
        with pytest.raises(JobNotFoundError):
            service.get_job(job.id)
    assert service.get_job(job.id) == job


# --- lists


def test_jobs_started_before(service: QueueService, store: PostgresStore, worker_store: WorkerStore) -> None:
    """The moment before which jobs were started must be aware."""
    add(store, make_job())
    running = claim_one(worker_store)
    assert service.get_all_jobs_started_before(FUTURE) == [running]
    for wrong in (datetime(2001, 1, 1), None, "today"):  # noqa: DTZ001 - what is refused
        with pytest.raises(InvalidJobError, match=r"t must be|no time zone"):
            service.get_all_jobs_started_before(wrong)  # type: ignore[arg-type]


def test_filters(service: QueueService, store: PostgresStore, worker_store: WorkerStore) -> None:
    """A state can be named as text, and every filter is a keyword."""
    bundle = service.add_bundle(make_bundle(2, member_type="a", origin="x"))
    add(store, make_job("a"), make_job("b", origin="x"))
    running = claim_one(worker_store, ["b"])
    assert service.list_jobs(state=State.RUNNING) == service.list_jobs(state="running", origin="x") == [running]
    assert set(service.list_jobs(type="a", origin="x", bundle_id=bundle.id)) == set(bundle.jobs)


@pytest.mark.parametrize("arguments", [{"state": "sleeping"}, {"limit": 0}, {"limit": -1}], ids=str)
def test_what_cannot_be_listed(service: QueueService, arguments: dict[str, Any]) -> None:
    """A state that there is not, or a limit below one, is a ValueError."""
    with pytest.raises(ValueError, match=r"sleeping|limit"):
        service.list_jobs(**arguments)


def all_pages(service: QueueService, **arguments: Any) -> list[UUID]:
    ids: list[UUID] = []
    after: Job | None = None
    while page := service.list_jobs(after=after, **arguments):
        assert len(page) <= arguments["limit"]
        ids += [job.id for job in page]
        assert len(ids) < 1000, "the pages never end"
        after = page[-1]
    return ids


def test_pages_go_on_after_whatever_names_the_place(service: QueueService) -> None:
    """After: a job that was read, one that was only added, a place as a tuple, also when its job is gone."""
    jobs = [service.enqueue("t", number) for number in range(5)]
    newest_first = jobs[::-1]
    assert service.list_jobs(after=jobs[3]) == newest_first[2:]
    read = service.get_job(jobs[3].id)
    assert service.list_jobs(after=read) == newest_first[2:]
    assert read.created_at is not None
    service.delete_job(read.id)
    assert service.list_jobs(after=(read.created_at, read.id)) == service.list_jobs(after=read) == newest_first[2:]
    with pytest.raises(JobNotFoundError):
        service.list_jobs(after=jobs[3])


# --- states and numbers


def test_states_in_sql_are_those_in_python(service: QueueService, db: Connection) -> None:
    """The state by which SQL filters and counts is the one that the job says it has, for every kind of row."""
    expected = {insert_job(db, **columns): state for state, columns in ROWS}
    assert {state for state, _ in ROWS} == set(State)
    for state in State:
        listed = service.list_jobs(state=state, limit=1000)
        assert {job.id for job in listed} == {id for id, of_row in expected.items() if of_row is state}
        assert {job.state for job in listed} == {state}
    by_state = service.get_status().by_state
    assert by_state == {state: list(expected.values()).count(state) for state in State}


# --- rows that other programs wrote

MOMENTS = ["infinity", "-infinity", "10000-01-01 00:00:00Z", "294276-12-31 00:00:00Z", "4713-01-01 00:00:00Z BC",
           "0001-01-01 00:00:00Z", "9999-12-31 23:59:59.999999Z"]  # fmt: skip


@pytest.mark.parametrize("column", ["start_at", "created_at"])
def test_moments_out_of_the_calendar(service: QueueService, db: Connection, column: str) -> None:
    """A moment that Python cannot hold is read as the nearest that it can, and spoils no list."""
    plain = insert_job(db)
    ids = {insert_job(db, **{column: moment}): moment for moment in MOMENTS}
    for listed in (service.list_jobs(), service.get_all_jobs_to_do()):
        assert {job.id for job in listed} == {plain, *ids}
    for id, moment in ids.items():
        read = getattr(service.get_job(id), column)
        assert read.year == (1 if moment.startswith(("-inf", "47", "0001")) else 9999)


@pytest.mark.parametrize("column", ["started_at", "worker_alive_at", "stopped_at", "updated_at", "cancelled_at"])
def test_other_moments_out_of_the_calendar(service: QueueService, db: Connection, column: str) -> None:
    """The same holds for the moments that only the database sets: whoever meddles with them spoils no list."""
    ids = {insert_job(db), *(insert_job(db, error_msg="x", **{column: moment}) for moment in MOMENTS)}
    assert {job.id for job in service.list_jobs()} == ids
    assert len(service.get_all_jobs_with_errors()) == len(MOMENTS)


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_pages_with_moments_out_of_the_calendar(service: QueueService, db: Connection, limit: int) -> None:
    """Pages hold every job once even where the place between two of them is a moment that Python cannot hold."""
    ids = {insert_job(db, created_at=moment) for moment in MOMENTS * 2}
    pages = all_pages(service, limit=limit)
    assert len(pages) == len(ids)
    assert set(pages) == ids


@pytest.mark.parametrize("column", ["payload", "result", "error_data", "progress", "attempt_errors"])
@pytest.mark.parametrize("json", ["9" * 5000, "1e100000"], ids=["digits", "exponent"])
def test_json_that_python_cannot_hold(service: QueueService, db: Connection, column: str, json: str) -> None:
    """JSON that Python cannot read spoils no list, and is an error of ours when somebody looks at it."""
    odd = insert_job(db, **{column: json}, error_msg="x")
    plain = insert_job(db, error_msg="x")
    for listed in (service.list_jobs(), service.get_all_jobs_to_do(), service.get_all_jobs_with_errors()):
        assert {job.id for job in listed} == {odd, plain}
    with pytest.raises(PayloadError):
        getattr(service.get_job(odd), column)
    assert str(odd) in repr(service.get_job(odd))


def test_json_that_is_very_deep(service: QueueService, db: Connection) -> None:
    """Nesting that some interpreters cannot follow is read by those that can, and an error of ours on the others."""
    odd = insert_job(db, payload="[" * 5000 + "]" * 5000)
    assert [job.id for job in service.list_jobs()] == [odd]
    try:
        payload = service.get_job(odd).payload
    except PayloadError:
        assert sys.version_info < (3, 12)
    else:
        assert len(payload) == 1


def test_attempt_errors_that_are_none(service: QueueService, db: Connection) -> None:
    """A column of attempts that another program filled in its own way is an error of ours when it is looked at."""
    job = service.get_job(insert_job(db, attempt_errors='{"a": 1}'))
    with pytest.raises(PayloadError):
        assert job.attempt_errors


@pytest.mark.parametrize(
    "on_stopped",
    [
        '{"type": "t", "payload": {}}',
        '{"type": "t", "payload": null, "x": 1}',
        '{"type": "t", "payload": %s}' % ("9" * 5000),
    ],
    ids=["short", "null", "digits"],
)
def test_on_stopped_of_another_program(service: QueueService, db: Connection, on_stopped: str) -> None:
    """A bundle is read whatever its description of a last job holds or lacks, as long as the database took it."""
    (id,) = fetch_all(
        db,
        "insert into worker.job_bundle (type, origin, num_jobs, on_stopped) "
        "values ('b', 'o', 1, %s::jsonb) returning id",
        on_stopped,
    )
    insert_job(db, bundle_id=id)
    bundle = service.get_job_bundle(id)
    assert bundle.on_stopped is not None
    assert (bundle.on_stopped.type, bundle.on_stopped.priority, bundle.on_stopped.max_retry_count) == ("t", 0, 0)


def test_on_stopped_with_a_number_that_python_cannot_read(service: QueueService) -> None:
    """A bundle that was made here with JSON text that Python cannot read can be read."""
    raw = RawJSON("9" * 5000)
    bundle = service.add_bundle(make_bundle(1, on_stopped=JobDesc(raw, type="after")))
    assert service.get_job_bundle(bundle.id).num_jobs == 1


def test_bundle_with_a_very_long_origin(service: QueueService, worker_store: WorkerStore, db: Connection) -> None:
    """A bundle whose type and origin are longer than a notification can be is read, and completes."""
    (id,) = fetch_all(
        db,
        "insert into worker.job_bundle (type, origin, num_jobs, on_stopped) "
        """values (repeat('b', 9000), repeat('o', 9000), 1, '{"type": "after", "payload": 1}') returning id""",
    )
    insert_job(db, bundle_id=id)
    assert len(service.get_job_bundle(id).origin or "") == 9000
    worker_store.save_outcomes([Outcome.finished(claim_one(worker_store, ["t"]))])
    assert service.get_job_bundle(id).stopped
    (after,) = service.list_jobs(type="after")
    assert after.origin == "o" * 100


def test_text_of_every_kind(service: QueueService, db: Connection) -> None:
    """Types, origins and messages come back as they are, whatever characters they have."""
    text = "\U0001f40d\u202e%s {x} \\ \" ' \x01\n"
    id = insert_job(db, type=text, origin=text, error_msg=text, claimed_by=text)
    job = service.get_job(id)
    assert (job.type, job.origin, job.error_msg, job.claimed_by) == (text, text, text, text)
    assert service.list_jobs(type=text, origin=text) == [job]
    assert row_of(db, id)["type"] == text
