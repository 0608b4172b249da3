"""How our connections are made, and how many there are."""

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool

WORKER_CONNECTIONS: Final = 3
"""What one worker pool uses, whatever its number of threads: two for trips, one for beats and maintenance."""

# Applied unless the conninfo, or libpq's variable, says otherwise: any text can be sent, and a dead network is noticed
# within about 30 s.
_CONNECTION_DEFAULTS: Final[Mapping[str, tuple[str, str | None]]] = {
    "client_encoding": ("utf8", None),
    "connect_timeout": ("10", "PGCONNECT_TIMEOUT"),
    "application_name": ("jobqueue", "PGAPPNAME"),
    "keepalives_idle": ("10", None),
    "keepalives_interval": ("5", None),
    "keepalives_count": ("3", None),
    "tcp_user_timeout": ("25000", None),
}

# A database may have other defaults for these; our statements rely on them.
_SESSION: Final = """
set default_transaction_isolation = 'read committed';
set timezone = 'UTC';
"""

# Statements of workers are few, run often, and are written to walk an index in its order, under a generic plan. To plan
# each anew costs more than to run it. A plan that was made while the table was small, or next to none of its rows were
# waiting, must not go on reading, or sorting, what has become of them; whatever else has to be sorted still is.
# Compiling a plan (which a pessimistic estimate can set off) costs a hundred times its run.
_WORKER_SESSION: Final = """
set plan_cache_mode = force_generic_plan;
set enable_seqscan = off;
set enable_bitmapscan = off;
set enable_sort = off;
set jit = off;
"""


def complete_conninfo(conninfo: str) -> str:
    """Add to *conninfo* the settings that make a dead network show, unless they are there.

    Raises:
        ValueError: *conninfo* is neither a URL nor a string of ``name=value`` pairs.
    """
    if not isinstance(conninfo, str):  # pyright: ignore[reportUnnecessaryIsInstance] - not every caller is type-checked
        raise TypeError(f"a PostgreSQL connection string is a str, not {type(conninfo).__qualname__}")
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        # What libpq has to say quotes from it, and it may hold a password.
        raise ValueError(
            "this is not a PostgreSQL connection string: it takes a URL (postgresql://user@host/database) "
            "or pairs (host=... dbname=...)"
        ) from None
    missing = {
        name: value
        for name, (value, variable) in _CONNECTION_DEFAULTS.items()
        if name not in given and not (variable and os.environ.get(variable))
    }
    return make_conninfo(conninfo, **missing)


def application_pool(conninfo: str, max_size: int) -> ConnectionPool:
    """Return a pool for the calls of an application: it connects at the first call, and keeps what is used."""

    def configure(connection: psycopg.Connection) -> None:
        connection.execute(_SESSION, prepare=False)

    return _pool(conninfo, "jobqueue-calls", max_size, configure, timeout=30)


def worker_pool(conninfo: str, lock_timeout: timedelta) -> ConnectionPool:
    """Return a pool for the trips and beats of one worker pool, none of which waits for a lock any longer."""

    def configure(connection: psycopg.Connection) -> None:
        connection.execute(_SESSION + _WORKER_SESSION, prepare=False)
        milliseconds = f"{max(1, round(lock_timeout.total_seconds() * 1000))}ms"
        connection.execute("select set_config('lock_timeout', %s, false)", [milliseconds], prepare=False)
        connection.prepare_threshold = 0

    return _pool(conninfo, "jobqueue-workers", WORKER_CONNECTIONS, configure, timeout=5)


def _pool(
    conninfo: str, name: str, max_size: int, configure: Callable[[psycopg.Connection], None], *, timeout: float
) -> ConnectionPool:
    return ConnectionPool(
        conninfo,
        name=name,
        kwargs={"autocommit": True},
        configure=configure,
        min_size=0,
        max_size=max_size,
        timeout=timeout,
        # After this long the pool gives an attempt up, and starts afresh at the next call: its back-off has no cap, and
        # would keep us waiting for minutes after a long outage has ended.
        reconnect_timeout=5,
        num_workers=1,
        open=True,
    )
