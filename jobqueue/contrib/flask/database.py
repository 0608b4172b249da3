"""Where the queue of an application is: by its own key, or in the database of Flask-SQLAlchemy."""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import psycopg
from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from jobqueue.contrib.flask.configuration import Configuration, ConfigurationError

_LIBPQS: Final = frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())
_DRIVERS: Final = frozenset({"psycopg", "psycopg2"})
_URI: Final = "SQLALCHEMY_DATABASE_URI"
# Every role may read it, and no two servers have been started in the same microsecond.
_PLACE: Final = """
select pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())::text, oid::text
from pg_catalog.pg_database
where datname = pg_catalog.current_database()
"""
_NAMING: Final = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE")


def conninfo_of(config: Mapping[str, Any], said: Configuration) -> str:
    """Return how the queue's database is reached.

    Raises:
        ConfigurationError: nothing names it, or it is no PostgreSQL.
    """
    if said.listen_dsn:
        _plain("JOBQUEUE_LISTEN_DSN", said.listen_dsn)
    if said.dsn:
        return _plain("JOBQUEUE_DSN", said.dsn)
    if uri := config.get(_URI):
        return conninfo_of_sqlalchemy(uri, config.get("SQLALCHEMY_ENGINE_OPTIONS") or {})
    if dsn := os.environ.get("JOBQUEUE_DSN"):
        return _plain("JOBQUEUE_DSN", dsn)
    if any(name in os.environ for name in _NAMING):
        return ""
    raise ConfigurationError(
        f'no database for the job queue: set JOBQUEUE_DSN in app.config, as "postgresql://localhost/shop", or {_URI}'
    )


def conninfo_of_sqlalchemy(uri: object, engine_options: Mapping[str, Any]) -> str:
    """Return how the database is reached that SQLAlchemy reaches by *uri*, with one of psycopg's drivers.

    Raises:
        ConfigurationError: it is another database, or another driver.
    """
    engine = import_module("sqlalchemy.engine")
    url = engine.make_url(uri)
    dialect = url.get_dialect()
    if dialect.name != "postgresql" or dialect.driver not in _DRIVERS:
        raise ConfigurationError(
            f"{_URI} is for {dialect.name} by {dialect.driver}, and the job queue is in PostgreSQL: make it "
            "postgresql+psycopg://, or set JOBQUEUE_DSN to a database for the queue"
        )
    _, arguments = dialect().create_connect_args(url)
    given = {**arguments, **engine_options.get("connect_args", {})}
    return make_conninfo("", **{name: value for name, value in given.items() if name in _LIBPQS})


def check_same_database(dsn: str, db: Any) -> None:
    """Make sure that what joins the session of *db* comes to the queue, as far as can be told without looking.

    Raises:
        ConfigurationError: the default engine of *db* leads to a database of another name, or to no PostgreSQL.
    """
    engine = db.engines.get(None)
    if engine is None:
        raise ConfigurationError(f"JobQueue(db=...) joins the session's default engine, and there is no {_URI}")
    theirs = conninfo_to_dict(conninfo_of_sqlalchemy(engine.url, {})).get("dbname")
    ours = conninfo_to_dict(dsn).get("dbname", os.environ.get("PGDATABASE"))
    if theirs is not None and ours is not None and theirs != ours:
        raise ConfigurationError(
            f"the queue is in database {ours!r}, and db.session in {theirs!r}, where no job can be added: "
            "leave db= away, or JOBQUEUE_DSN"
        )


def check_same_server(dsn: str, session: Any) -> bool:
    """Make sure that what joins *session* comes to the queue; return False if that cannot be seen now.

    Raises:
        ConfigurationError: its connection is to another database than *dsn*, or commits each statement by itself.
    """
    connection = session.connection()
    if connection.connection.driver_connection.autocommit:
        raise ConfigurationError(
            "db.session is AUTOCOMMIT, so that jobs would be added whatever becomes of it: leave db= away, or the "
            "isolation level"
        )
    try:
        theirs = connection.exec_driver_sql(_PLACE).one()
    except import_module("sqlalchemy.exc").DBAPIError:
        return False  # its transaction has failed before, as the call itself says
    with psycopg.connect(dsn, autocommit=True) as own:
        ours = own.execute(_PLACE).fetchone()
    if tuple(theirs) != ours:
        raise ConfigurationError(
            "JOBQUEUE_DSN leads to another server or database than db.session, where no worker of this queue would "
            "see a job: leave db= away, or JOBQUEUE_DSN"
        )
    return True


def _plain(key: str, dsn: str) -> str:
    """Return *dsn* as libpq takes it, though it may be written as SQLAlchemy does."""
    scheme, colon, rest = dsn.partition("://")
    if colon and scheme.partition("+")[0] not in {"postgresql", "postgres"}:
        raise ConfigurationError(f"{key} is for {scheme}, and the job queue is in PostgreSQL")
    dsn = f"{scheme.partition('+')[0]}://{rest}" if colon else dsn
    try:
        return make_conninfo(dsn)
    except ProgrammingError as error:
        raise ConfigurationError(f"{key} is no connection string: {' '.join(str(error).split())}") from None
