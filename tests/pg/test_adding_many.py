"""Many jobs are added by COPY: on whatever connection, whatever is in them, and all of them or none."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from jobqueue import DuplicateJobError, Job, JobBundle, JobDesc, RawJSON, RefusedError, UnavailableError
from jobqueue.queue_service import QueueService
from jobqueue_pg import adding, rows
from jobqueue_pg.store import PostgresStore
from tests.fixtures.listening import Ear
from tests.fixtures.stores import (
    START,
    Connection,
    assert_counts_true,
    fetch_all,
    insert_job,
    make_bundle,
    make_job,
)

MANY = adding._LEAST_JOBS_TO_COPY
FUTURE = datetime(2100, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.fixture
def caller(queue: str) -> Iterator[Connection]:
    """The application's own connection, which begins a transaction with its first statement."""
    with closing(psycopg.connect(queue)) as connection:
        yield connection


@pytest.fixture
def verbs(db: Connection) -> Iterator[Callable[[], list[str]]]:
    """Return the first word of each statement that has added jobs."""
    db.execute(
        """
        create table public.added_by (verb text, at serial);
        create function public.note() returns trigger language plpgsql as $$
        begin
            insert into public.added_by (verb) values ((regexp_match(current_query(), '\\w+'))[1]);
            return null;
        end $$;
        create trigger note after insert on worker.job execute function public.note()
        """
    )
    yield lambda: fetch_all(db, "select verb from public.added_by order by at")
    db.execute("drop function public.note() cascade; drop table public.added_by")


def many(number: int = MANY) -> list[Job]:
    return [make_job(payload=n) for n in range(number)]


# --- when


def test_many_are_copied(service: QueueService, verbs: Callable[[], list[str]]) -> None:
    """From a hundred jobs on they are added by COPY, below that by a single INSERT; so are the members of bundles."""
    service.add_jobs(many(MANY - 1))
    service.add_jobs(many())
    service.add_bundle(make_bundle(MANY - 1))
    bundle = service.add_bundle(make_bundle(MANY))
    assert verbs() == ["insert", "copy", "with", "with", "copy"]
    assert [job.payload for job in service.get_job_bundle(bundle.id).jobs] == list(range(MANY))
    assert service.get_status().num_jobs == 4 * MANY - 2


def test_many_in_a_pipeline(service: QueueService, caller: Connection, verbs: Callable[[], list[str]]) -> None:
    """Within a pipeline of the caller's, where COPY cannot be done, they are added by a statement, and else copied."""
    with caller.pipeline():
        service.add_jobs(many(), connection=caller)
        service.add_bundle(make_bundle(MANY), connection=caller)
    caller.commit()
    assert verbs() == ["insert", "with"]
    service.add_jobs(many(), connection=caller)
    caller.commit()
    assert verbs() == ["insert", "with", "copy"]
    assert service.get_status().num_jobs == 3 * MANY


def test_an_encoding_that_lacks_a_character(service: QueueService, queue: str) -> None:
    """What the caller's connection cannot spell is refused, and its transaction can be used afterwards."""
    with closing(psycopg.connect(queue, client_encoding="latin1")) as caller:
        caller.execute("select 1")
        with pytest.raises(RefusedError, match="encoding"):
            service.add_jobs([*many(), make_job(payload="\N{SNOWMAN}")], connection=caller)
        service.add_jobs([*many(), make_job("é")], connection=caller)
        caller.commit()
    assert service.get_status().by_type == {"t": MANY, "é": 1}


# --- what


CHARACTERS = st.one_of(
    st.sampled_from("\\\t\n\r.N\b\f\v\"'%,{}é\U0001f600"), st.characters(codec="utf-8", exclude_characters="\0")
)
TEXTS = st.text(CHARACTERS)
NAMES = st.text(CHARACTERS, min_size=1, max_size=100)
WHITE = st.text(" \t\n\r", max_size=3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.tuples(NAMES, NAMES, TEXTS, WHITE), min_size=1, max_size=20))
def test_hostile_values(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, values: list[tuple[str, str, str, str]]
) -> None:
    """Whatever is in their types, origins and payloads, jobs are read as they were added."""
    monkeypatch.setattr(adding, "_LEAST_JOBS_TO_COPY", 1)
    jobs = [
        make_job(type, RawJSON(f"{white}{{{white}{json.dumps(text)}: {white}1{white}}}"), origin=origin)
        for type, origin, text, white in values
    ]
    store.add_jobs(jobs)
    found = {job.id: job for job in store.get_jobs([job.id for job in jobs])}
    for job in jobs:
        read = found[job.id]
        assert (read.type, read.origin, read.payload) == (job.type, job.origin, job.payload)


def test_every_value_is_kept(service: QueueService) -> None:
    """A job that was copied holds what it was made of, and nothing else."""
    job = Job.new("t", [1, None], priority=-(2**63), start_at=FUTURE, max_retry_count=2**31 - 1)
    service.add_jobs([*many(), job])
    read = service.get_job(job.id)
    assert (read.priority, read.start_at, read.max_retry_count, read.origin) == (-(2**63), FUTURE, 2**31 - 1, "tests")
    assert (read.bundle_id, read.run_count, read.current_retry_count, read.claim_id) == (None, 0, 0, None)


def test_when_they_were_added(store: PostgresStore, service: QueueService, caller: Connection) -> None:
    """They were created when the transaction began, by the database's clock, or by that of the tests."""
    jobs = many()
    store.add_jobs(jobs)
    assert {(job.created_at, job.updated_at) for job in store.get_all_jobs_to_do()} == {(START, START)}
    [began] = fetch_all(caller, "select now()")
    service.add_jobs(many(), connection=caller)
    caller.commit()
    others = [job for job in store.get_all_jobs_to_do() if job.created_at != START]
    assert {(job.created_at, job.updated_at) for job in others} == {(began, began)}
    assert len(others) == MANY


def test_blocks_are_made_as_they_are_sent() -> None:
    """Jobs are spelled one block at a time, so that very many of them take no more memory than they have already."""
    job = make_job(payload="x" * 1000)
    blocks = rows.job_blocks(repeat(job), None)
    first = next(blocks)
    assert len(first) < 2 * rows._CHARACTERS_IN_BLOCK
    assert first == next(blocks)


# --- where


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"autocommit": True},
        {"row_factory": dict_row},
        {"cursor_factory": psycopg.ClientCursor},
        {"prepare_threshold": 0},
    ],
    ids=["plain", "autocommit", "rows are dicts", "client cursors", "prepares always"],
)
@pytest.mark.parametrize("by", ["connection", "cursor"])
def test_connections_of_every_make(service: QueueService, queue: str, options: dict[str, Any], by: str) -> None:
    """Whatever the caller's connection makes, many jobs are added over it, in its transaction if it has one."""
    with closing(psycopg.connect(queue, **options)) as connection:
        cursor = connection.cursor()
        cursor.execute("select 1 as one")
        service.add_jobs(many(), connection=cursor if by == "cursor" else connection)
        assert len(cursor.fetchall()) == 1
        assert service.get_status().num_jobs == (MANY if connection.autocommit else 0)
        connection.commit()
    assert service.get_status().num_jobs == MANY


def test_rollback_leaves_nothing(service: QueueService, caller: Connection, ear: Ear) -> None:
    """When the caller's transaction, or a part of it, rolls back, what was copied in it never existed."""
    with caller.transaction():
        service.add_jobs(many(), connection=caller)
        with caller.transaction(force_rollback=True):
            service.add_jobs(many(), connection=caller)
            service.add_bundle(make_bundle(MANY), connection=caller)
    caller.rollback()
    assert (service.get_status().num_jobs, service.get_status().num_job_bundles) == (MANY, 0)
    assert [told["count"] for _, told in ear.heard()] == [MANY]


def test_a_closed_connection(service: QueueService, caller: Connection) -> None:
    """A connection that is closed already is an UnavailableError, however many jobs are to be added."""
    caller.close()
    with pytest.raises(UnavailableError):
        service.add_jobs(many(), connection=caller)
    with pytest.raises(UnavailableError):
        service.add_bundle(make_bundle(MANY), connection=caller)
    assert service.get_status().is_zero


def test_through_a_pooler(pooled: str, queue: str) -> None:
    """Through a pooler that lends sessions for a transaction, ours and the caller's, many jobs are added like few."""
    with (
        closing(PostgresStore(pooled)) as store,
        closing(psycopg.connect(pooled, prepare_threshold=None, autocommit=True)) as caller,
    ):
        store.add_jobs(many())
        store.add_bundle(make_bundle(MANY))
        store.add_jobs(many(), connection=caller)
        with caller.transaction(force_rollback=True):
            store.add_jobs(many(), connection=caller)
        store.add_jobs(many(), notify=False, connection=caller)
        assert store.get_status().num_jobs == 4 * MANY


# --- all or nothing


@pytest.mark.parametrize("whose", ["ours", "autocommit"])
@pytest.mark.parametrize("bundled", [False, True])
def test_several_copies_are_all_or_nothing(
    service: QueueService, db: Connection, whose: str, bundled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When one of the jobs of several COPY statements is there already, none of the others stays."""
    monkeypatch.setattr(adding, "_MOST_JOBS_TO_COPY", MANY)
    bundle = make_bundle(2 * MANY + 1)
    taken = bundle.jobs[-1].id
    insert_job(db, id=taken)
    connection = None if whose == "ours" else db
    add: Any = service.add_bundle if bundled else service.add_jobs
    added: Any = bundle if bundled else [make_job(id=job.id) for job in bundle.jobs]
    with pytest.raises(DuplicateJobError) as caught:
        add(added, connection=connection)
    assert caught.value.existing_id == taken
    assert (service.get_status().num_jobs, service.get_status().num_job_bundles) == (1, 0)
    service.delete_job(taken)
    service.add_bundle(bundle, connection=connection)
    assert service.get_status().num_jobs == 2 * MANY + 1
    assert_counts_true(db)


def test_a_duplicate_in_the_callers_transaction(service: QueueService, caller: Connection) -> None:
    """A duplicate ends the caller's transaction as any refused statement does; a savepoint saves it."""
    first, *others = jobs = many()
    service.add_job(first)
    caller.execute("select 1")
    with pytest.raises(DuplicateJobError) as caught, caller.transaction():
        service.add_jobs(jobs, connection=caller)
    assert caught.value.existing_id == first.id
    service.add_jobs([*others, make_job()], connection=caller)
    caller.commit()
    assert service.get_status().num_jobs == 1 + len(jobs)


def test_what_the_database_refuses(service: QueueService, db: Connection) -> None:
    """What a table refuses amid a COPY is a RefusedError that quotes no row, and the next call finds all as it was."""
    db.execute("alter table worker.job add constraint no_elephants check (type <> 'elephant')")
    try:
        with pytest.raises(RefusedError, match="no_elephants") as caught:
            service.add_jobs([*many(), make_job("elephant", "secret"), *many()])
    finally:
        db.execute("alter table worker.job drop constraint no_elephants")
    assert "secret" not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert service.get_status().is_zero
    service.add_jobs([*many(), make_job("elephant", start_at=datetime.now(UTC) + timedelta(days=1))])
    assert service.get_status().num_jobs == MANY + 1


def test_a_payload_that_is_no_json(service: QueueService, caller: Connection) -> None:
    """A job made by hand of what is not JSON is refused, however it tries to look like the end of the data."""
    for payload in ("\\.", "\\N", "1\n2", "\0", ""):
        broken = Job(id=make_job().id, type="t", payload_json=payload)
        with pytest.raises(RefusedError), caller.transaction():
            service.add_jobs([*many(), broken], connection=caller)
    caller.commit()
    assert service.get_status().is_zero


def test_members_of_a_large_bundle_are_those_described(service: QueueService) -> None:
    """Members that were copied have what was described, and the bundle's origin."""
    descs = [JobDesc({"n": n}, type=f"t{n}", priority=n) for n in range(MANY)]
    bundle = service.add_bundle(JobBundle.new("b", descs, origin="mine", on_stopped=JobDesc(1, type="after")))
    read = service.get_job_bundle(bundle.id)
    assert [(job.type, job.priority, job.payload["n"], job.origin) for job in read.jobs] == [
        (f"t{n}", n, n, "mine") for n in range(MANY)
    ]
    assert (read.num_jobs, read.on_stopped is not None) == (MANY, True)
