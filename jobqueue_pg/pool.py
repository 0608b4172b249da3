"""How our connections are made, and how many there are."""

import logging
import os
import re
import time
from collections.abc import Mapping
from datetime import timedelta
from math import inf
from typing import Final, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool, PoolTimeout

from jobqueue_pg.loan import Loan
from jobqueue_pg.sessions import READ_COMMITTED, Session, Sessions

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
_READ_COMMITTED: Final[Mapping[str, str]] = {"default_transaction_isolation": READ_COMMITTED}
_SETTINGS: Final[Mapping[str, str]] = {
    **_READ_COMMITTED,
    "timezone": "UTC",
    # They name the schema of their tables. What others have called like a function of the system is not meant.
    "search_path": "pg_catalog, pg_temp",
}

# Statements of workers are few, run often, and are written to walk an index in its order, under a generic plan. To plan
# each anew costs more than to run it. A plan that was made while the table was small, or next to none of its rows were
# waiting, must not go on reading, or sorting, what has become of them; whatever else has to be sorted still is.
# Compiling a plan (which a pessimistic estimate can set off) costs a hundred times its run.
_WORKER_SETTINGS: Final[Mapping[str, str]] = {
    **_SETTINGS,
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "jit": "off",
    # Their statements notify of the jobs that they stop: the trigger, which looks at one row at a time, need not.
    "jobqueue.tells_of_stopped": "on",
}

# How long a handler may take is for its own timeout to say.
_HANDLER_SETTINGS: Final[Mapping[str, str]] = {
    **_READ_COMMITTED,
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",
}

# How long it may take to begin a handler's transaction, and to end it.
_SECONDS_TO_END: Final = 30.0

_LOCK_TIMEOUTS_TO_ANSWER: Final = 30
_LOCK_TIMEOUTS_TO_RECONNECT: Final = 4
_LEAST_SECONDS_TO_ANSWER: Final = 5.0

_OF_SQLALCHEMY: Final = re.compile(r"(?P<scheme>postgres(?:ql)?)\+\w+://")

# How our pools and connections are called in what the driver says of them.
_MARKS_OF_OURS: Final = ("'jobqueue-calls'", "'jobqueue-workers'", "'jobqueue-handlers'", f"<{__package__}.")
_driver_logger: Final = logging.getLogger("psycopg.pool")


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
        if found := _OF_SQLALCHEMY.match(conninfo):
            raise ValueError(
                f"this URL is written as SQLAlchemy takes it, with a driver: write {found['scheme']}:// in place of "
                f"{found[0]}"
            ) from None
        raise ValueError(
            "this is not a PostgreSQL connection string: it takes a URL (postgresql://user@host/database) "
            "or pairs (host=... dbname=...)"
        ) from None
    _check_place(given)
    missing = {
        name: value
        for name, (value, variable) in _CONNECTION_DEFAULTS.items()
        if name not in given and not (variable and os.environ.get(variable))
    }
    return make_conninfo(conninfo, **missing)


def _check_place(given: Mapping[str, object]) -> None:
    """Refuse a URL whose password has spilled over into its host or port, which errors and logs quote."""
    hosts = str(given.get("host") or "").split(",")
    ports = str(given.get("port") or "").split(",")
    # A host that begins with it is an abstract socket.
    if any("@" in host[1:] for host in hosts) or not all(port.isdecimal() for port in ports if port):
        raise ValueError(
            "the host or the port in this PostgreSQL connection string is none: in a URL, characters like @ : / ? in "
            "the user's name and the password are written as %40 %3A %2F %3F"
        )


def application_pool(conninfo: str, max_size: int, *, prepares: bool | None = None) -> "Pool":
    """Return a pool for the calls of an application: it connects at the first call, and keeps what is used.

    How long a statement may take is for the database's owner to say: some delete a million rows.
    """
    return Pool(conninfo, "jobqueue-calls", max_size, Sessions(_SETTINGS, prepares=prepares), timeout=30, outlived=True)


def worker_pool(conninfo: str, lock_timeout: timedelta, *, prepares: bool | None = None) -> "Pool":
    """Return a pool for the trips and beats of one worker pool, none of which waits for a lock any longer.

    Nor for an answer longer than 30 times that. The owner's statement_timeout, made for the requests of an application,
    does not hold for them; ours has the server end what we have given up.
    """
    seconds = lock_timeout.total_seconds()
    answer_within = max(_LEAST_SECONDS_TO_ANSWER, seconds * _LOCK_TIMEOUTS_TO_ANSWER)
    timeouts = {"lock_timeout": _milliseconds(seconds), "statement_timeout": _milliseconds(answer_within)}
    sessions = Sessions({**_WORKER_SETTINGS, **timeouts}, prepares=prepares, prepare_threshold=0)
    return Pool(
        conninfo,
        "jobqueue-workers",
        WORKER_CONNECTIONS,
        sessions,
        timeout=5,
        # Where others soon take silence for death, each beat tries afresh, without the pauses between attempts.
        reconnect_within=min(5.0, seconds * _LOCK_TIMEOUTS_TO_RECONNECT),
        answer_within=answer_within,
    )


def handler_pool(conninfo: str, max_size: int, *, prepares: bool | None = None) -> "Pool":
    """Return a pool for atomic handlers, whose sessions are as the database's owner has set them up."""
    sessions = Sessions(_HANDLER_SETTINGS, prepares=prepares)
    return Pool(conninfo, "jobqueue-handlers", max_size, sessions, timeout=5, answer_within=_SECONDS_TO_END)


def _milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


class Pool(ConnectionPool):
    """A pool of connections that wait for an answer for *answer_within* seconds, and are known to live when given out.

    Calls that are out when it is closed are broken off, unless they may have *outlived* it.

    Its troubles are ours to tell of: what psycopg's own logger would say of each attempt to connect is not logged.
    """

    def __init__(
        self,
        conninfo: str,
        name: str,
        max_size: int,
        sessions: Sessions,
        *,
        timeout: float,
        reconnect_within: float = 5.0,
        answer_within: float = inf,
        outlived: bool = False,
    ) -> None:
        self._process = os.getpid()
        self._sessions = sessions
        self._trouble: Exception | None = None

        def set_up(session: psycopg.Connection) -> None:
            assert isinstance(session, Session)
            sessions.set_up(session)
            session.answer_within = answer_within
            if not outlived:
                session.is_wanted = lambda: not self.closed

        _driver_logger.addFilter(_is_not_of_ours)
        super().__init__(
            conninfo,
            name=name,
            connection_class=Session,
            kwargs={"autocommit": True, "tell": self._note},
            configure=set_up,
            min_size=0,
            max_size=max_size,
            timeout=timeout,
            # After this long the pool gives an attempt up, and starts afresh at the next call: its back-off has no cap,
            # and would keep us waiting for minutes after a long outage has ended.
            reconnect_timeout=reconnect_within,
            num_workers=1,
            open=True,
        )

    def __del__(self) -> None:
        # A forked child has none of its parent's threads to stop, and must not wait for a lock that one of them held.
        if self._process == os.getpid():
            super().__del__()

    def clean(self, session: psycopg.Connection) -> None:
        """Undo what whoever has *session* has done to it, whatever that is."""
        assert isinstance(session, Session)
        self._sessions.clean(session)

    def _note(self, trouble: Exception | None) -> None:
        self._trouble = trouble

    def getconn(self, timeout: float | None = None) -> Session:
        """Give out a connection that, as far as can be seen from here, was not ended by the server meanwhile."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            connection = self._get(deadline - time.monotonic())
            if connection.is_alive and not connection.is_demoted:
                return connection
            connection.discard()
            self.putconn(connection)  # which makes a new one in its place

    def _get(self, timeout: float) -> Session:
        try:
            session = super().getconn(timeout)
        except PoolTimeout as error:
            if self._trouble is None:
                raise
            raise PoolTimeout(f"{error}: {' '.join(str(self._trouble).split())}") from self._trouble
        assert isinstance(session, Session)
        return session

    def connection(  # type: ignore[override] # as the driver's, but for what it costs
        self, timeout: float | None = None, *, isolation: LiteralString | None = None
    ) -> Loan:
        """Lend a connection for a ``with`` block; it is discarded when its session turns out to be of no use any more.

        With *isolation* the block is one transaction of that kind; without, it is one where sessions are a pooler's.
        """
        return Loan(self, self._sessions, timeout, isolation)


def _is_not_of_ours(record: logging.LogRecord) -> bool:
    return record.levelno < logging.WARNING or not any(mark in record.getMessage() for mark in _MARKS_OF_OURS)
