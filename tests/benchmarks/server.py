"""The PostgreSQL server of a run: one of its own, as durable as they come, or the one that JOBQUEUE_TEST_DSN names."""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Final
from urllib.parse import quote

import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict

from jobqueue_pg.embedded import EmbeddedServer, find_bindir
from tests.fixtures.pg import fresh_database

# Nothing that makes commits cheaper. No checkpoint falls into a drain by chance, which would make its rounds unlike.
SETTINGS: Final[Mapping[str, str]] = {
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
}
DURABLE: Final[Mapping[str, str]] = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
_SHOWN: Final = (
    *DURABLE,
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "wal_sync_method",
    "wal_level",
    "autovacuum",
    "jit",
    "max_connections",
)


class NotDurableError(Exception):
    """The server would lose what it has committed: its figures would be worth nothing."""


@attrs.frozen
class Server:
    """A server that runs."""

    dsn: str
    version: str
    settings: Mapping[str, str]

    @contextmanager
    def fresh_database(self) -> Iterator[str]:
        """Make an empty database, and drop it at the end of the block; it is known by a URL."""
        with fresh_database(self.dsn, "template1") as conninfo:
            yield url_of(conninfo)


@contextmanager
def running() -> Iterator[Server]:
    """Have a server.

    Raises:
        NotDurableError: it is not as durable as PostgreSQL is by itself.
    """
    if dsn := os.environ.get("JOBQUEUE_TEST_DSN"):
        yield _looked_at(dsn)
    else:
        with EmbeddedServer(find_bindir(), settings=SETTINGS) as server:
            yield _looked_at(server.conninfo)


def url_of(conninfo: str) -> str:
    """Return *conninfo* as a URL, which every driver takes."""
    known = {name: quote(str(value), safe="") for name, value in conninfo_to_dict(conninfo).items()}
    user, password, host, port, database = (
        known.pop(name, "") for name in ("user", "password", "host", "port", "dbname")
    )
    place = f"{user}{':' if password else ''}{password}@{host}{':' if port else ''}{port}"
    options = "&".join(f"{name}={value}" for name, value in sorted(known.items()))
    return f"postgresql://{place}/{database}{'?' if options else ''}{options}"


def _looked_at(dsn: str) -> Server:
    with closing(psycopg.connect(dsn, autocommit=True)) as connection:
        rows = connection.execute(
            "select name, current_setting(name) from pg_settings where name = any(%s)", [[*_SHOWN, "server_version"]]
        ).fetchall()
    settings: dict[str, str] = dict(rows)
    version = settings.pop("server_version")
    wrong = {name: settings[name] for name, wanted in DURABLE.items() if settings[name] != wanted}
    if wrong:
        raise NotDurableError(f"the server is not durable: {wrong}")
    return Server(dsn, version, {name: settings[name] for name in _SHOWN})
