"""What calls do in handlers and in requests stays, or the log says that it does not."""

import inspect
from contextlib import suppress

import flask_sqlalchemy
import pytest
import sqlalchemy

import jobqueue
from jobqueue import DuplicateJobError, JobContext
from jobqueue.queue_service import QueueService
from jobqueue.queue_service.changing import TOLD_OF
from jobqueue.service import Service
from tests.fixtures.joining import url_of
from tests.fixtures.stores import fetch_all
from tests.fixtures.workers import wait_for_end

READING = {
    "check_connection",
    "claim",
    "count_jobs",
    "count_old_jobs",
    "health",
    "oldest_due_age",
    "paused_types",
    "recent_activity",
}
ADDING = {"enqueue", "add_job", "add_jobs", "add_bundle"}
NOT_OF_ROWS = ("add_job_stopped_", "add_job_bundle_stopped_", "get_", "list_", "remove_all_", "remove_job_", "set_")
OF_THE_SERVICE = {
    "add_listener",
    "add_observer",
    "attach",
    "close",
    "detach",
    "remove_listener",
    "remove_observer",
    "use",
    "use_in_workers",
    "wait_for_bundle",
    "wait_for_job",
}
JOBS = "select type from worker.job order by type"


@pytest.fixture
def shop(apps, queue):
    """An application with a session, and both of them."""
    sessions = flask_sqlalchemy.SQLAlchemy()
    uri = url_of(queue, "psycopg").render_as_string(hide_password=False)
    app, extension = apps.make(db=sessions, SQLALCHEMY_DATABASE_URI=uri)
    yield app, sessions, extension
    with app.app_context():
        sessions.engine.dispose()


def test_all_that_changes_is_noted():
    """Each method of a service that changes rows is known to be one."""
    methods = {name for name, _ in inspect.getmembers(Service, inspect.isfunction) if not name.startswith("_")}
    others = {name for name in methods if name.startswith(NOT_OF_ROWS)} | READING | OF_THE_SERVICE
    told_of = {name for name, _ in inspect.getmembers(QueueService, lambda found: hasattr(found, TOLD_OF))}
    assert methods - others == ADDING | told_of


@pytest.mark.parametrize("atomic", [False, True])
def test_what_a_handler_calls(shop, db, work_for, caplog, atomic):
    """What a handler adds, holds back and cancels without a commit is there when its job has succeeded."""
    app, _, extension = shop
    kept = extension.service.enqueue("kept", 1)

    @extension.handler("parent", atomic=atomic)
    def parent(number: int) -> None:
        jobqueue.enqueue("child", number)
        jobqueue.pause("held")
        jobqueue.cancel_job(kept.id)

    work_for(app)
    assert wait_for_end(extension.service, extension.service.enqueue("parent", 1)).error_msg is None
    assert fetch_all(db, JOBS) == ["child", "kept", "parent"]
    assert [paused.type for paused in extension.service.paused_types()] == ["held"]
    assert extension.service.get_job(kept.id).cancelled_at is not None
    assert caplog.messages == []
    extension.service.resume("held")


def test_a_handler_that_gives_the_session(shop, db, work_for):
    """A handler that commits by itself has jobs be part of that by giving the session."""
    app, sessions, extension = shop

    @extension.handler("parent")
    def parent(number: int) -> None:
        jobqueue.enqueue("gone", number, connection=sessions.session)
        sessions.session.rollback()
        jobqueue.enqueue("stays", number, connection=sessions.session)
        sessions.session.commit()

    work_for(app)
    assert wait_for_end(extension.service, extension.service.enqueue("parent", 1)).error_msg is None
    assert fetch_all(db, JOBS) == ["parent", "stays"]


def test_a_handler_in_the_session(shop, db, work_for):
    """What a handler with atomic="session" adds and holds back is committed with its job's completion."""
    app, _, extension = shop

    @extension.handler("parent", atomic="session")
    def parent(ctx: JobContext, number: int) -> None:
        jobqueue.enqueue("child", number)
        jobqueue.pause("held")
        assert fetch_all(db, JOBS) == ["parent"]

    work_for(app)
    assert wait_for_end(extension.service, extension.service.enqueue("parent", 1)).error_msg is None
    assert fetch_all(db, JOBS) == ["child", "parent"]
    assert extension.service.resume("held")


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("enqueue", lambda service, _: service.enqueue("another", 1)),
        (
            "enqueue",
            lambda service, _: service.enqueue("kept", 2, unique_key="k", on_conflict="replace_payload"),
        ),
        ("pause", lambda service, _: service.pause("held")),
        ("cancel_job", lambda service, job: service.cancel_job(job.id)),
        ("delete_jobs_of_type", lambda service, _: service.delete_jobs_of_type("kept")),
        ("reset_job", lambda service, job: service.reset_job(job.id)),
        ("add_schedule", lambda service, _: service.add_schedule("daily", "kept", 1, cron="0 0 * * *")),
    ],
)
def test_a_request_that_does_not_commit(shop, db, caplog, name, call):
    """What a request has changed without a commit is gone, and the log names the calls."""
    app, _, extension = shop
    kept = extension.service.enqueue("kept", 1, unique_key="k")
    app.add_url_rule("/", view_func=lambda: str(call(extension.service, kept)))
    assert app.test_client().get("/").status_code == 200
    assert fetch_all(db, JOBS) == ["kept"]
    assert [f"call db.session.commit() after {name}(), also" in message for message in caplog.messages] == [True]


def test_the_session_given_and_not_committed(shop, caplog):
    """A job that is added by connection=db.session, and not committed, is told of, too."""
    app, sessions, _ = shop
    with app.app_context():
        jobqueue.enqueue("t", 1, connection=sessions.session)
    assert len(caplog.messages) == 1


def add_a_duplicate(_, __):
    with suppress(DuplicateJobError):
        jobqueue.enqueue("t", 1, unique_key="k", on_conflict="raise")
    assert jobqueue.enqueue("t", 1, unique_key="k").is_duplicate


def add_by_another_connection(_, other_db):
    jobqueue.enqueue("another", 1, connection=other_db)
    jobqueue.get_status()


def add_in_a_session_that_has_failed(sessions, _):
    with suppress(Exception):
        sessions.session.execute(sqlalchemy.text("select 1/0"))
    with suppress(Exception):
        jobqueue.enqueue("another", 1)


def change_nothing(_, __):
    assert jobqueue.delete_jobs_of_type("nothing") == 0
    assert jobqueue.resume("nothing") is False


@pytest.mark.parametrize(
    "call", [add_a_duplicate, add_by_another_connection, add_in_a_session_that_has_failed, change_nothing]
)
def test_what_is_not_lost(shop, other_db, caplog, call):
    """Nothing is said of calls that have changed nothing in the session."""
    app, sessions, extension = shop
    extension.service.enqueue("t", 1, unique_key="k")
    with app.app_context():
        call(sessions, other_db)
    assert caplog.messages == []
