from contextlib import suppress
from datetime import timedelta

import flask
import flask_sqlalchemy
import pytest
import sqlalchemy

import jobqueue
from tests.fixtures.joining import url_of
from tests.fixtures.stores import fetch_all
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end

JOBS = "select type from worker.job order by type"
NOTES = "select text from note order by text"


@pytest.fixture
def notes(db):
    """A table of the application's."""
    db.execute("create table note (text text not null unique)")
    yield db
    db.execute("drop table note")


@pytest.fixture(params=["psycopg", "psycopg2"])
def shop(request, apps, queue, notes):
    """An application with a session, and both of them."""
    sessions = flask_sqlalchemy.SQLAlchemy()
    app, extension = apps.make(
        db=sessions, SQLALCHEMY_DATABASE_URI=url_of(queue, request.param).render_as_string(hide_password=False)
    )
    yield app, sessions, extension
    with app.app_context():
        sessions.engine.dispose()


def note(sessions, text):
    sessions.session.execute(sqlalchemy.text("insert into note values (:text)"), {"text": text})


def test_a_job_is_part_of_the_session(shop, db):
    """What is enqueued in a context exists when its session commits, though nothing else was done there before."""
    app, sessions, _ = shop
    with app.app_context():
        jobqueue.enqueue("first", 1)
        note(sessions, "a")
        assert fetch_all(db, JOBS) == []
        sessions.session.commit()
        assert fetch_all(db, JOBS) == ["first"]
        jobqueue.enqueue("second", 1)
        sessions.session.rollback()
    assert fetch_all(db, JOBS) == ["first"]


def test_a_savepoint_takes_its_jobs_with_it(shop, db):
    """What was enqueued within a savepoint is gone when that is rolled back; the rest stays."""
    app, sessions, _ = shop
    with app.app_context():
        jobqueue.enqueue("stays", 1)
        with suppress(ZeroDivisionError), sessions.session.begin_nested():
            jobqueue.enqueue("goes", 1)
            raise ZeroDivisionError
        sessions.session.commit()
    assert fetch_all(db, JOBS) == ["stays"]


def test_outside_of_a_context(shop, db):
    """Where there is no context, and so no session, a job is added at once."""
    jobqueue.enqueue("t", 1)
    assert fetch_all(db, JOBS) == ["t"]


def test_in_a_context_of_another_application(shop, apps, db):
    """The session of one application is not joined in the context of another."""
    _, _, extension = shop
    service = extension.service
    other, _ = apps.make("other")
    with other.app_context():
        service.enqueue("t", 1)
        assert fetch_all(db, JOBS) == ["t"]


def test_a_connection_goes_before_the_session(shop, other_db, db):
    """A connection that is given is the one that is joined."""
    app, sessions, _ = shop
    with app.app_context():
        jobqueue.enqueue("t", 1, connection=other_db)
        sessions.session.rollback()
    assert fetch_all(db, JOBS) == ["t"]


def test_a_request_that_does_not_commit(shop, db, caplog):
    """A job that a request has added without a commit is gone, and the log says what to do."""
    app, _, _ = shop
    app.add_url_rule("/", view_func=lambda: str(jobqueue.enqueue("t", 1).id))
    assert app.test_client().get("/").status_code == 200
    assert fetch_all(db, JOBS) == []
    assert ["call db.session.commit() after enqueue()" in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("end", ["commit", "rollback", "read", "error"])
def test_who_need_not_be_told(shop, caplog, end):
    """Nothing is said of jobs that were committed or rolled back, nor of requests that failed, or only read."""
    app, sessions, _ = shop
    with suppress(ZeroDivisionError), app.app_context():
        if end == "read":
            jobqueue.list_jobs()
        else:
            jobqueue.enqueue("t", 1)
        if end == "commit":
            sessions.session.commit()
        elif end == "rollback":
            sessions.session.rollback()
        elif end == "error":
            raise ZeroDivisionError
    assert caplog.messages == []


def test_a_savepoint_is_no_commit(shop, caplog):
    """Jobs that end with their context are told of, though a savepoint was released after them."""
    app, sessions, _ = shop
    with app.app_context():
        jobqueue.enqueue("t", 1)
        with sessions.session.begin_nested():
            note(sessions, "a")
    assert len(caplog.messages) == 1


def test_a_commit_of_an_independent_session_is_none(shop, db, caplog):
    """What another session commits says nothing of the one that the job was added in."""
    app, sessions, _ = shop
    with app.app_context():
        jobqueue.enqueue("t", 1)
        with sessions.session.session_factory() as independent:
            independent.execute(sqlalchemy.text("insert into note values ('audit')"))
            independent.commit()
    assert (fetch_all(db, JOBS), fetch_all(db, NOTES)) == ([], ["audit"])
    assert len(caplog.messages) == 1


def test_an_atomic_handler(shop, db, work_for):
    """What a handler does in the session is committed with its job's completion, and not before."""
    app, sessions, extension = shop

    @extension.handler("note", atomic="session")
    def add(text: str) -> str:
        note(sessions, text)
        assert fetch_all(db, NOTES) == []
        return text

    work_for(app)
    with app.app_context():
        job = add.enqueue("a")
        sessions.session.commit()
        ended = wait_for_end(extension.service, job)
    assert (ended.result, ended.error_msg) == ("a", None)
    assert fetch_all(db, NOTES) == ["a"]


def test_an_atomic_handler_that_fails(shop, db, work_for):
    """What a handler has done in the session before it failed is rolled back; its job is not."""
    app, sessions, extension = shop

    @extension.handler("note", atomic="session")
    def add(text: str) -> None:
        note(sessions, text)
        jobqueue.enqueue("another", 1)
        raise ValueError(text)

    work_for(app)
    ended = wait_for_end(extension.service, extension.service.enqueue("note", "a"))
    assert ended.error_msg == "a"
    assert fetch_all(db, NOTES) == []
    assert fetch_all(db, JOBS) == ["note"]


def test_an_atomic_handler_that_commits(shop, db, work_for):
    """A handler whose transaction is to end with its job cannot commit before: it fails, and nothing has been done."""
    app, sessions, extension = shop

    @extension.handler("note", atomic="session")
    def add(text: str) -> None:
        with sessions.session.begin_nested():
            note(sessions, text)
        sessions.session.commit()

    work_for(app)
    ended = wait_for_end(extension.service, extension.service.enqueue("note", "a"))
    assert "flush() the session instead" in ended.error_msg
    assert fetch_all(db, NOTES) == []


def test_an_atomic_handler_that_takes_another_session(shop, db, work_for):
    """A handler that removes its session can commit another one as little, and what it has done so far is gone."""
    app, sessions, extension = shop

    @extension.handler("note", atomic="session")
    def add(text: str) -> None:
        note(sessions, text)
        sessions.session.remove()
        note(sessions, text * 2)
        if text == "a":
            sessions.session.commit()

    work_for(app, threads=1)
    ended = [wait_for_end(extension.service, extension.service.enqueue("note", text)) for text in ("a", "b")]
    assert "flush() the session instead" in ended[0].error_msg
    assert "has ended its transaction by itself" in ended[1].error_msg
    assert fetch_all(db, NOTES) == []


@pytest.mark.parametrize("how", ["kept", "removed"])
def test_an_atomic_handler_with_a_session_of_its_own(shop, db, work_for, how):
    """A session that a handler makes by itself is committed by itself, whatever becomes of the job."""
    app, sessions, extension = shop

    @extension.handler("note", atomic="session")
    def add(text: str) -> None:
        note(sessions, text)
        if how == "removed":
            sessions.session.remove()
        with sessions.session.session_factory() as independent:
            independent.execute(sqlalchemy.text("insert into note values ('audit')"))
            independent.commit()
        raise ValueError(text)

    work_for(app)
    assert wait_for_end(extension.service, extension.service.enqueue("note", "a")).error_msg == "a"
    assert fetch_all(db, NOTES) == ["audit"]


def test_an_atomic_handler_that_commits_what_it_has_removed(shop, db, work_for):
    """The session that a job began with commits nothing by itself after its removal, either."""
    app, sessions, extension = shop

    @extension.handler("note", atomic="session")
    def add(text: str) -> None:
        began_with = sessions.session()
        sessions.session.remove()
        began_with.execute(sqlalchemy.text("insert into note values ('late')"))
        began_with.commit()

    work_for(app)
    ended = wait_for_end(extension.service, extension.service.enqueue("note", "a"))
    assert "flush() the session instead" in ended.error_msg
    assert fetch_all(db, NOTES) == []


def test_a_transaction_of_another_name(shop, work_for):
    """A handler that names a transaction that there is not is refused when the threads start."""
    app, _, extension = shop
    extension.handler("note", atomic="default")(lambda text: text)
    with pytest.raises(jobqueue.RegistrationError, match=r"atomic='default'.* names 'session'"):
        work_for(app)


def test_a_plain_handler(shop, db, work_for):
    """A plain handler commits its session by itself; the session of a run is removed with its context."""
    app, sessions, extension = shop
    seen = []

    @extension.handler("note")
    def add(text: str) -> None:
        seen.append(sessions.session())
        note(sessions, text)
        if text == "b":
            sessions.session.commit()

    work_for(app, threads=1)
    for text in ("a", "b"):
        wait_for_end(extension.service, extension.service.enqueue("note", text))
    assert fetch_all(db, NOTES) == ["b"]
    assert seen[0] is not seen[1]
    with app.app_context():
        wait_until(lambda: sessions.engine.pool.checkedout() == 0)


def test_without_a_session(apps, db):
    """Without db=, a context changes nothing: a job is added at once."""
    app, queue = apps.make()
    with app.app_context():
        queue.service.enqueue("t", 1, delay=timedelta(hours=1))
        assert fetch_all(db, JOBS) == ["t"]


def test_the_session_is_asked_for_late(shop):
    """A job in a context is added in the session of that context, not of the one around it."""
    app, sessions, extension = shop
    with app.app_context():
        outer = extension.service.enqueue("outer", 1)
        with app.app_context():
            inner = extension.service.enqueue("inner", 1)
            sessions.session.commit()
        assert flask.current_app == app
        assert extension.service.get_job(outer.id).type == "outer"
        sessions.session.rollback()
        assert [job.id for job in extension.service.list_jobs()] == [inner.id]
        sessions.session.rollback()
