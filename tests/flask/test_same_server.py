"""A session is joined only if it leads to the queue, and commits when it is told to."""

from contextlib import closing

import flask_sqlalchemy
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import jobqueue
from jobqueue.contrib.flask.configuration import ConfigurationError
from tests.fixtures.joining import url_of
from tests.fixtures.stores import fetch_all
from tests.fixtures.workers import wait_for_end


@pytest.fixture
def make_shop(apps, queue):
    """Make an application whose session is at a place; return it, and the session's extension."""
    made = []

    def make(place, driver="psycopg", **engine):
        sessions = flask_sqlalchemy.SQLAlchemy(engine_options=engine)
        uri = url_of(place, driver).render_as_string(hide_password=False)
        app, extension = apps.make(db=sessions, SQLALCHEMY_DATABASE_URI=uri)
        made.append((app, sessions))
        return app, sessions, extension

    yield make
    for app, sessions in made:
        with app.app_context():
            sessions.engine.dispose()


def test_another_server(make_shop, queue, db, server, work_for):
    """A session at another server, in a database of the same name, is refused before a job is added there."""
    name = conninfo_to_dict(queue)["dbname"]
    with closing(psycopg.connect(server.conninfo, autocommit=True)) as elsewhere:
        elsewhere.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    app, _, extension = make_shop(make_conninfo(server.conninfo, dbname=name))
    with app.app_context(), pytest.raises(ConfigurationError, match="JOBQUEUE_DSN leads to another server"):
        jobqueue.enqueue("t", 1)
    extension.handler("atomic", atomic="session")(lambda number: number)
    work_for(app)
    ended = wait_for_end(extension.service, extension.service.enqueue("atomic", 1))
    assert "leads to another server" in ended.error_msg
    assert fetch_all(db, "select type from worker.job") == ["atomic"]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_session_that_commits_by_itself(make_shop, queue, db, driver):
    """A session whose engine is AUTOCOMMIT is refused: no rollback would take a job back."""
    app, _, _ = make_shop(queue, driver, isolation_level="AUTOCOMMIT")
    with app.app_context(), pytest.raises(ConfigurationError, match="session is AUTOCOMMIT"):
        jobqueue.enqueue("t", 1)
    assert fetch_all(db, "select type from worker.job") == []
