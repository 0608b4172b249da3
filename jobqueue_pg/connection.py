"""A connection that does not wait for an answer for ever, and that can tell without a question that it was ended."""

import time
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final, Never, Self, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.generators import execute
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.rows import TupleRow
from psycopg.waiting import Ready

from jobqueue.patience import seconds_to_answer

_T = TypeVar("_T")

_SECONDS_TO_SET_UP: Final = 10.0
_LAST_WORDS: Final = ("FATAL", "PANIC")
_NUL: Final = b"\0"


def _tell_nobody(error: Exception | None) -> None:
    pass


class BoundedConnection(psycopg.Connection[TupleRow]):
    """A connection that is closed when an answer does not come in time; whoever waits for it gets OperationalError.

    The timeouts of TCP end what waits for a host that is gone. They know nothing of a server, or of a proxy before it,
    that hangs while its host goes on to acknowledge whatever it is sent.
    """

    answer_within: float = _SECONDS_TO_SET_UP
    """How many seconds an answer may take, if its caller is not less patient: see jobqueue.patience."""

    _heard_last_words: bool = False

    opened_at: float = -inf
    """When it was made, by the monotonic clock."""

    took_writes: bool = False
    """Whether the server took writes when this was made."""

    _times_prepared = 0

    is_wanted: Callable[[], bool] | None = None
    """Asked, if there is one, ten times a second while an answer is awaited: whether anybody still wants it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Of what run_repeatedly has prepared; empty for what it has run once.
        self._statement_names: dict[bytes, bytes] = {}

    @classmethod
    def connect(  # type: ignore[override] # pyright: ignore[reportIncompatibleMethodOverride] - rows are tuples here
        cls, conninfo: str = "", *, tell: Callable[[Exception | None], object] = _tell_nobody, **kwargs: Any
    ) -> Self:
        """Connect, and *tell* with which error that failed, or None."""
        try:
            connection = super().connect(conninfo, **kwargs)
        except Exception as error:
            tell(error)
            raise
        tell(None)
        connection.opened_at = time.monotonic()
        connection.took_writes = connection.takes_writes
        connection.listen_for_last_words()
        return connection

    @property
    def is_demoted(self) -> bool:
        """Whether the server took writes once, and does not any more: then another may be the one to ask."""
        return self.took_writes and not self.takes_writes

    @property
    def takes_writes(self) -> bool:
        """Whether the server takes writes, as it said itself with its last answer; before version 14 it does not."""
        told = self.pgconn.parameter_status
        return told(b"in_hot_standby") != b"on" and told(b"default_transaction_read_only") != b"on"

    @property
    def is_alive(self) -> bool:
        """Whether nothing has come so far that says otherwise; the server is not asked."""
        try:
            # The first may read the server's last words, and only the second finds that nothing follows them. Between
            # the two the server may take its time: so the words are listened to as well.
            self.pgconn.consume_input()
            self.pgconn.consume_input()
            self.pgconn.is_busy()
        except psycopg.OperationalError:
            return False
        return not self._heard_last_words

    def listen_for_last_words(self) -> None:
        """Have ``is_alive`` know what the server says when it ends the session, while nobody has asked it anything."""
        self.add_notice_handler(self._heed_notice)

    def _heed_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized in _LAST_WORDS:
            self._heard_last_words = True

    def run_repeatedly(self, statement: bytes, values: Sequence[str | None]) -> None:
        """Run *statement* with *values* for its parameters; from its second time here on it is prepared.

        It is for what is run very often, and without rows to read: a cursor of the driver takes twice as much of the
        processor. The connection must be autocommit, speak UTF-8, and have a session of its own.
        """
        parameters = [None if value is None else value.encode() for value in values]
        if _NUL in b"".join(filter(None, parameters)):  # where the value would end for the server
            raise psycopg.DataError("PostgreSQL text cannot contain NUL (0x00) bytes")
        name = self._statement_names.get(statement)
        if name is None:
            self._statement_names[statement] = b""
            self.pgconn.send_query_params(statement, parameters)
        else:
            self.pgconn.send_query_prepared(name or self._prepare(statement), parameters)
        self._await_answer()

    def _prepare(self, statement: bytes) -> bytes:
        self._times_prepared += 1
        name = f"jobqueue_{self._times_prepared}".encode()
        self.pgconn.send_prepare(name, statement)
        self._await_answer()
        self._statement_names[statement] = name
        return name

    def _await_answer(self) -> None:
        for result in self.wait(execute(self.pgconn)):
            if result.status == ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result)

    def rollback(self) -> None:
        """Roll back, and forget all that was prepared: so the driver does with what it has prepared itself, if any."""
        is_in_transaction = self.pgconn.transaction_status != TransactionStatus.IDLE
        super().rollback()
        if is_in_transaction and self._statement_names:
            self._statement_names.clear()
            self.execute("deallocate all", prepare=False)

    def discard(self) -> None:
        """Close it, whatever state it is in, and whoever it belongs to."""
        self.pgconn.finish()

    def wait(self, gen: PQGen[_T], *args: Any, **kwargs: Any) -> _T:
        """Do what *gen* does, for as long as an answer may take."""
        seconds = seconds_to_answer(self.answer_within)
        is_bounded = seconds < inf or self.is_wanted is not None
        return super().wait(self._bounded(gen, seconds) if is_bounded else gen, *args, **kwargs)

    def _bounded(self, steps: PQGen[_T], seconds: float) -> PQGen[_T]:
        deadline = time.monotonic() + seconds
        try:
            wanted = next(steps)
            while True:
                ready = yield wanted
                if ready == Ready.NONE:
                    if time.monotonic() >= deadline:
                        self._give_up(f"there was no answer within {seconds:.3g} s")
                    if self.is_wanted is not None and not self.is_wanted():
                        self._give_up("nobody wants the answer any more")
                wanted = steps.send(ready)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _give_up(self, reason: str) -> Never:
        self.discard()
        raise psycopg.OperationalError(f"{reason}: the connection is given up")
