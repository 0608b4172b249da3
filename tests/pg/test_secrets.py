"""What a payload holds, and the password, are told to nobody: in no log, whatever its level, and in no error."""

import logging
import threading
import traceback
from contextlib import closing, suppress
from datetime import timedelta

import attrs
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import jobqueue
import jobqueue_pg
from jobqueue import (
    ClosedError,
    DuplicateJobError,
    Job,
    JobBundle,
    JobDesc,
    JobQueueError,
    PayloadError,
    RawJSON,
    RefusedError,
    UnavailableError,
    WorkerPool,
    WorkerSettings,
)
from jobqueue_pg.errors import translate_errors
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end

# Put together, so that they stand in no line of source that a traceback shows.
MARKER = "pay" + "load" + "-7f3a91"
PASSWORD = "pass" + "word" + "-c05e44"
NEVER = (
    "alter table worker.job add constraint never check (payload::text !~ 'forbidden' and result::text !~ 'forbidden')"
)


class Witness(logging.Handler):
    """Keeps everything that anybody logs, as it would be written, with all that comes along."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.told = []

    def emit(self, record):
        self.told.append(f"{logging.Formatter().format(record)} {vars(record)}")


@pytest.fixture
def witness():
    """Who reads all logs, at DEBUG, and is certain in the end that neither payload nor password was in them."""
    root, witness = logging.getLogger(), Witness()
    before = root.level
    root.addHandler(witness)
    root.setLevel(logging.DEBUG)
    yield witness
    root.setLevel(before)
    root.removeHandler(witness)
    assert_untold(*witness.told)


def assert_untold(*texts):
    for text in texts:
        assert MARKER not in text
        assert PASSWORD not in text


def told_by(call, kind):
    """Return all that an error shows, with its causes, as a traceback does and as a programmer looks at it."""
    with pytest.raises(kind) as caught:
        call()
    assert isinstance(caught.value, JobQueueError | ValueError)
    return f"{''.join(traceback.format_exception(caught.value))} {caught.value!r} {vars(caught.value)}"


@pytest.fixture
def secretive(queue, witness):
    """A service that has a password, on a queue that refuses some payloads and results."""
    with psycopg.connect(queue, autocommit=True) as connection:
        connection.execute(NEVER)
    with closing(jobqueue_pg.connect(make_conninfo(queue, password=PASSWORD), origin="tests")) as service:
        yield service
    with psycopg.connect(queue, autocommit=True) as connection:
        connection.execute("alter table worker.job drop constraint never")


@attrs.frozen
class Letter:
    to: str
    copies: int


# --- payloads


@pytest.mark.parametrize(
    "payload",
    [
        {"a": MARKER, "b": object()},
        [MARKER, float("nan")],
        f"{MARKER}\0",
        f"{MARKER}\ud800",
        {MARKER, 1j},
        Letter(to=MARKER, copies=object()),
        MARKER * 100_000,
        None,
    ],
    ids=["object", "nan", "nul", "surrogate", "set", "attrs", "too long", "null"],
)
def test_a_payload_that_cannot_be_json(secretive, payload):
    """The error names the place and the reason, and not what is there."""
    assert_untold(told_by(lambda: secretive.enqueue("t", payload), PayloadError))


@pytest.mark.parametrize(
    "text", [f"{MARKER}", f'"{MARKER}', f'{{"{MARKER}": 1,}}', f'["{MARKER}", NaN]', f'"{MARKER}\\u0000"']
)
def test_raw_json_that_is_none(witness, text):
    """What is no JSON is not quoted."""
    assert_untold(told_by(lambda: RawJSON(text), PayloadError))


@pytest.mark.parametrize("joins", [False, True])
def test_a_payload_that_the_database_refuses(secretive, db, joins):
    """PostgreSQL quotes the whole row; the error, its cause and the log do not."""
    connection = db if joins else None
    payload = {"forbidden": MARKER}
    bundle = JobBundle.new("b", [JobDesc(payload, type="t")], origin="o")
    for call in (
        lambda: secretive.enqueue("t", payload, connection=connection),
        lambda: secretive.add_jobs([Job.new("t", payload)], connection=connection),
        lambda: secretive.add_bundle(bundle, connection=connection),
    ):
        told = told_by(call, RefusedError)
        assert "never" in told  # the constraint
        assert_untold(told)


def test_a_duplicate(secretive):
    """The id is named, and nothing else of the row that is there already."""
    job = Job.new("t", MARKER, origin="o")
    secretive.add_job(job)
    for call in (lambda: secretive.add_job(job), lambda: secretive.add_jobs([job, Job.new("t", MARKER)])):
        told = told_by(call, DuplicateJobError)
        assert str(job.id) in told
        assert_untold(told)


def test_an_encoding_that_cannot_spell_a_payload(queue, secretive):
    """On a caller's connection of another encoding, what cannot be sent is not quoted."""
    with closing(psycopg.connect(queue, client_encoding="latin1")) as caller:
        told = told_by(lambda: secretive.enqueue("t", f"{MARKER}\u20ac", connection=caller), RefusedError)
    assert_untold(told)


# --- runs


def test_runs_that_end_in_every_way(secretive, registry, db, witness):
    """Good and bad results, payloads that do not fit, jobs that nobody can handle: the log names ids and types only."""
    registry.register_func_for_job_type("good", lambda text: text)
    registry.register_func_for_job_type("unfit", lambda letter: letter.to)
    registry.register_func_for_job_type("no json", lambda text: {text, object()})
    registry.register_func_for_job_type("refused", lambda text: {"forbidden": text})

    @registry.handler("structured", max_retry_count=1)
    def structured(letter: Letter) -> str:
        return letter.to

    @registry.handler("failing", max_retry_count=1, retry=jobqueue.Exponential(base=timedelta(milliseconds=1)))
    def failing(text: str) -> None:
        raise ValueError(len(text))

    jobs = [
        secretive.enqueue(kind, payload)
        for kind, payload in {
            "good": MARKER,
            "no json": MARKER,
            "refused": MARKER,
            "structured": {"to": MARKER, "copies": MARKER},
            "failing": MARKER,
        }.items()
    ]
    with WorkerPool(secretive, registry, threads=2):
        ended = [wait_for_end(secretive, job, 20) for job in jobs]
    assert [job.succeeded for job in ended] == [True, False, False, False, False]
    assert any(") failed: " in told for told in witness.told)
    assert_untold(*(f"{job!r} {job.error_msg}" for job in ended))


def test_rows_that_cannot_be_read(secretive, registry, db, witness):
    """A payload that Python cannot hold fails its job, and what was around it is not told."""
    registry.register_func_for_job_type("t", lambda payload: None)
    job = secretive.enqueue("t", RawJSON(f'["{MARKER}", {"9" * 5000}]'))
    with WorkerPool(secretive, registry, threads=1):
        assert wait_for_end(secretive, job).has_error


def test_claims_by_hand(secretive):
    """What a claim is ended with is told to nobody, nor what it could not be ended with."""
    for _ in range(3):
        secretive.enqueue("t", MARKER)
    good, unspelt, refused = secretive.claim(["t"], 3)
    good.finish(MARKER)
    assert_untold(repr(unspelt), told_by(lambda: unspelt.finish({MARKER, object()}), PayloadError))
    with suppress(JobQueueError):
        refused.finish({"forbidden": MARKER})


def test_listeners_that_fail(secretive, registry):
    """A listener that raises is logged with its event, of which payload and result are no part."""
    told = threading.Event()

    def listen(job: Job, will_retry: bool) -> None:
        told.set()
        raise RuntimeError(job.type)

    secretive.add_job_stopped_listener(listen)
    registry.register_func_for_job_type("t", lambda text: text)
    with WorkerPool(secretive, registry, threads=1):
        secretive.enqueue("t", MARKER)
        assert told.wait(20)


# --- passwords


def test_what_shows_a_service(secretive, registry):
    """Neither the service nor its parts, its health or its threads show the password."""
    registry.register_func_for_job_type("t", lambda text: text)
    pool = WorkerPool(secretive, registry, threads=1)
    with pool, closing(secretive.store.for_workers()) as store:
        assert wait_for_end(secretive, secretive.enqueue("t", MARKER)).succeeded
        wait_until(lambda: "listener" in secretive.health()["parts"])
        parts = (secretive, secretive.store, store, secretive.store._database.pool, secretive._notifier, pool)
        assert_untold(*map(repr, parts), *map(str, parts), repr(secretive.health()))
        assert_untold(*(thread.name for thread in threading.enumerate()))


def test_connections_that_fail(queue, witness):
    """Whatever is wrong with host, port, user or database, the error that says so is without the password."""
    known = conninfo_to_dict(queue)
    for wrong in ({"port": 1}, {"user": "nobody_here"}, {"dbname": "no_such_database"}, {"host": "nowhere.invalid"}):
        conninfo = make_conninfo(**{**known, "password": PASSWORD, "connect_timeout": 5, **wrong})
        for call in (jobqueue_pg.connect, jobqueue_pg.migrate, jobqueue_pg.init_job_queue):
            assert_untold(told_by(lambda call=call, conninfo=conninfo: call(conninfo), UnavailableError))


def test_an_error_is_one_line(queue, db):
    """Of what the driver and the server say over several lines, with advice, a line of a log is made."""
    with pytest.raises(UnavailableError, match="Connection refused Is the server running") as unavailable:
        jobqueue_pg.connect(make_conninfo(queue, host="127.0.0.1", port=1))
    assert not set("\n\t") & set(str(unavailable.value))
    with pytest.raises(RefusedError) as refused, translate_errors():
        db.execute("do $$ begin raise E'first\n\tsecond'; end $$")
    assert str(refused.value) == "the database refused: first second"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:half@{PASSWORD}@127.0.0.1/db",
        f"postgresql://user:{PASSWORD}/x@127.0.0.1/db",
        f"postgresql://user:half:{PASSWORD}@127.0.0.1:x/db",
        f"postgresql://user:{PASSWORD}%@127.0.0.1/db",
        f"postgresql://user:{PASSWORD}@127.0.0.1/db?nosuch={PASSWORD}",
    ],
)
def test_passwords_that_break_a_url(witness, url):
    """A password that must be quoted, and is not, ends up in the host or the port; it is refused, and not told."""
    for call in (jobqueue_pg.connect, jobqueue_pg.migrate, jobqueue.connect):
        assert_untold(told_by(lambda call=call: call(url), ValueError))
    with pytest.raises(ValueError, match="connection string"):
        jobqueue_pg.connect(listen_conninfo=url)


def states(service):
    """Return the states of those parts that use a connection all the time."""
    parts = service.health()["parts"]
    return {parts[name]["state"] for name in ("listener", "workers")}


def test_a_database_that_goes_away(migrated, registry, witness):
    """While every connection is refused, threads and calls say so many times, each time without the password."""
    settings = WorkerSettings(poll_interval=timedelta(seconds=0.1))
    service = jobqueue_pg.connect(make_conninfo(migrated, password=PASSWORD), settings=settings)
    registry.register_func_for_job_type("t", lambda text: text)
    name = conninfo_to_dict(migrated)["dbname"]
    with (
        closing(psycopg.connect(make_conninfo(migrated, dbname="postgres"), autocommit=True)) as admin,
        closing(service),
        WorkerPool(service, registry, threads=1),
    ):
        service.enqueue("t", MARKER)
        admin.execute(f'alter database "{name}" allow_connections false')
        fetch_all(admin, "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", name)
        wait_until(lambda: states(service) == {"down"}, 20)
        with jobqueue.patience.patience(1):
            assert_untold(told_by(lambda: service.enqueue("t", MARKER), UnavailableError))
        admin.execute(f'alter database "{name}" allow_connections true')
        wait_until(lambda: states(service) == {"up"}, 20)
    assert_untold(told_by(lambda: service.enqueue("t", MARKER), ClosedError))
