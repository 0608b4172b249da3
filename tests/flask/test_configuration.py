from datetime import timedelta
from pathlib import Path

import flask
import pytest
from flask_sqlalchemy import SQLAlchemy
from psycopg.conninfo import conninfo_to_dict

from jobqueue import Retention
from jobqueue.contrib.flask import JobQueue
from jobqueue.contrib.flask.configuration import KEYS, ConfigurationError, read_configuration
from jobqueue.contrib.flask.database import conninfo_of

NAMED = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE", "JOBQUEUE_DSN")
PAGE = Path(__file__).parents[2] / "docs" / "flask.md"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in NAMED:
        monkeypatch.delenv(name, raising=False)


def dsn_of(**config):
    return conninfo_to_dict(conninfo_of(config, read_configuration(config)))


def test_what_is_not_said():
    """Without a key, a queue is what it is without Flask, and has no threads."""
    said = read_configuration({"SECRET_KEY": "x"})
    assert (said.schema, said.threads, said.start, said.imports) == ("worker", 0, "auto", ())
    assert said.workers.dead_for == timedelta(seconds=60)


def test_values_from_the_environment():
    """Durations may be numbers of seconds, and retention a mapping: what comes from the environment is JSON."""
    said = read_configuration(
        {
            "JOBQUEUE_DEAD_FOR": 90,
            "JOBQUEUE_POLL_INTERVAL": 0.5,
            "JOBQUEUE_UNIQUE_LOCK_TIMEOUT": 1,
            "JOBQUEUE_RETENTION": {"succeeded": timedelta(days=1)},
            "JOBQUEUE_IMPORTS": ["shop.jobs"],
            "JOBQUEUE_LANES": {"mail": 1},
        }
    )
    assert (said.workers.dead_for, said.workers.poll_interval) == (timedelta(seconds=90), timedelta(seconds=0.5))
    assert said.unique_lock_timeout == timedelta(seconds=1)
    assert said.retention == Retention(succeeded=timedelta(days=1))
    assert (said.imports, said.lanes) == (("shop.jobs",), {"mail": 1})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("JOBQUEUE_THREAD", 4, "app.config has JOBQUEUE_THREAD, which is no setting .* did you mean JOBQUEUE_THREADS?"),
        ("JOBQUEUE_ORIGINS", "x", "did you mean JOBQUEUE_ORIGIN?"),
        ("JOBQUEUE_XYZZY", 1, "there are JOBQUEUE_ATOMIC_CONNECTIONS, "),
        ("JOBQUEUE_THREADS", "4", "JOBQUEUE_THREADS must be .*int.*'4'"),
        ("JOBQUEUE_THREADS", -1, "JOBQUEUE_THREADS must be >= 0"),
        ("JOBQUEUE_THREADS", True, "JOBQUEUE_THREADS must be an int, not True"),
        ("JOBQUEUE_START", "never", "JOBQUEUE_START must be 'auto', True or False, not 'never'"),
        ("JOBQUEUE_IMPORTS", "shop.jobs", r'JOBQUEUE_IMPORTS must be a list of modules, such as \["shop.jobs"\]'),
        ("JOBQUEUE_UNKNOWN_TYPES", "no", "JOBQUEUE_UNKNOWN_TYPES must be one of 'allow', 'warn', 'refuse', not 'no'"),
        ("JOBQUEUE_ORIGIN", "", "JOBQUEUE_ORIGIN must have 1 to 100 characters"),
        ("JOBQUEUE_DSN", 5, "JOBQUEUE_DSN must be .*str"),
        ("JOBQUEUE_LANES", ["mail"], r'JOBQUEUE_LANES must be a mapping such as \{"mail": 2\}'),
        ("JOBQUEUE_DEAD_FOR", float("inf"), "JOBQUEUE_DEAD_FOR must be a timedelta, not inf"),
        ("JOBQUEUE_HEARTBEAT_INTERVAL", float("nan"), "JOBQUEUE_HEARTBEAT_INTERVAL must be a timedelta, not nan"),
        ("JOBQUEUE_SCHEMA", "", "JOBQUEUE_SCHEMA must be the name of a schema"),
        ("JOBQUEUE_DEAD_FOR", 3, "JOBQUEUE_DEAD_FOR is 0:00:03, but must be at least three times"),
        ("JOBQUEUE_BATCH_SIZE", 0, "JOBQUEUE_BATCH_SIZE must be at least 1"),
        ("JOBQUEUE_POLL_ONLY", 1, "JOBQUEUE_POLL_ONLY must be .*bool"),
        ("JOBQUEUE_RETENTION", 7, "JOBQUEUE_RETENTION must be .*Retention"),
        ("JOBQUEUE_RETENTION", {"success": 7}, "JOBQUEUE_RETENTION has 'success', but what it may have is succeeded, "),
        ("JOBQUEUE_RETENTION", {"failed": 7}, "JOBQUEUE_RETENTION cannot be meant: failed must be a timedelta"),
        ("JOBQUEUE_UNIQUE_LOCK_TIMEOUT", -1, "JOBQUEUE_UNIQUE_LOCK_TIMEOUT must be a millisecond to a day, not"),
    ],
)
def test_what_cannot_be_meant(key, value, message):
    """A key that there is not, or a value that it cannot have, is refused by its name, with what it may be."""
    with pytest.raises(ConfigurationError, match=message):
        read_configuration({key: value})


def test_lanes_leave_a_thread():
    """Lanes that reserve all threads are refused when the application is made, not in each worker."""
    with pytest.raises(ConfigurationError, match="JOBQUEUE_LANES reserve 2 of 2 threads"):
        read_configuration({"JOBQUEUE_THREADS": 2, "JOBQUEUE_LANES": {"mail": 2}})


def test_the_table_of_keys():
    """The page about Flask has a line for each key, and for nothing else."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    told = [name for line in lines if line.startswith("| `JOBQUEUE_") for name in line.split("|")[1].split("`")[1::2]]
    assert sorted(told) == sorted(KEYS)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_the_database_of_flask_sqlalchemy(driver):
    """Without a DSN of its own, the queue is where SQLAlchemy is, whichever of psycopg's drivers that has."""
    uri = f"postgresql+{driver}://me:p%40ss@db.example:5433/shop?sslmode=require"
    options = {"connect_args": {"connect_timeout": 3, "cursor_factory": object}, "echo": True}
    assert dsn_of(SQLALCHEMY_DATABASE_URI=uri, SQLALCHEMY_ENGINE_OPTIONS=options) == {
        "user": "me",
        "password": "p@ss",
        "host": "db.example",
        "port": "5433",
        "dbname": "shop",
        "sslmode": "require",
        "connect_timeout": "3",
    }


def test_a_dsn_of_its_own():
    """JOBQUEUE_DSN goes before SQLAlchemy's, and may be written as that is."""
    other = "postgresql://a/b"
    ours = {"host": "h", "dbname": "q"}
    assert dsn_of(JOBQUEUE_DSN="postgresql+psycopg2://h/q", SQLALCHEMY_DATABASE_URI=other) == ours
    assert dsn_of(JOBQUEUE_DSN="host=h dbname=q") == ours


def test_a_dsn_from_the_environment(monkeypatch):
    """Where the application names no database, JOBQUEUE_DSN of the environment does, or libpq's variables."""
    monkeypatch.setenv("PGDATABASE", "shop")
    assert dsn_of() == {}
    monkeypatch.setenv("JOBQUEUE_DSN", "postgresql://h/q")
    assert dsn_of() == {"host": "h", "dbname": "q"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "no database for the job queue: set JOBQUEUE_DSN"),
        ({"SQLALCHEMY_DATABASE_URI": "sqlite://"}, "SQLALCHEMY_DATABASE_URI is for sqlite by pysqlite"),
        ({"SQLALCHEMY_DATABASE_URI": "postgresql+asyncpg://h/d"}, "is for postgresql by asyncpg"),
        ({"JOBQUEUE_DSN": "mysql://h/d"}, "JOBQUEUE_DSN is for mysql"),
        ({"JOBQUEUE_DSN": "nonsense"}, "JOBQUEUE_DSN is no connection string"),
        ({"JOBQUEUE_DSN": ""}, "no database for the job queue"),
        (
            {"JOBQUEUE_DSN": "postgresql://h/d", "JOBQUEUE_LISTEN_DSN": "nonsense"},
            "JOBQUEUE_LISTEN_DSN is no connection string",
        ),
    ],
)
def test_no_database(config, message):
    """An application without a database for the queue is told when it is made."""
    app = flask.Flask("shop")
    app.config.update(config)
    with pytest.raises(ConfigurationError, match=message):
        JobQueue(app)
    assert "jobqueue" not in app.extensions


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"SQLALCHEMY_DATABASE_URI": "postgresql+psycopg://h/shop", "JOBQUEUE_DSN": "postgresql://h/queue"},
            "the queue is in database 'queue', and db.session in 'shop'",
        ),
        (
            {
                "SQLALCHEMY_BINDS": {"other": "postgresql+psycopg://h/shop"},
                "JOBQUEUE_DSN": "postgresql://h/shop",
            },
            "there is no SQLALCHEMY_DATABASE_URI",
        ),
        ({"SQLALCHEMY_DATABASE_URI": "sqlite://", "JOBQUEUE_DSN": "postgresql://h/shop"}, "is for sqlite"),
    ],
)
def test_a_session_that_does_not_lead_to_the_queue(config, message):
    """Jobs cannot be added in the session of another database: that is refused when the application is made."""
    app, db = flask.Flask("shop"), SQLAlchemy()
    app.config.update(config)
    db.init_app(app)
    with pytest.raises(ConfigurationError, match=message):
        JobQueue(app, db=db)


def test_two_queues_for_one_application(apps):
    """An application has one queue."""
    app, _ = apps.make()
    with pytest.raises(RuntimeError, match="'shop' has a job queue already"):
        JobQueue(app)
