"""What our statements need of a connection that is not psycopg's."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import psycopg


class Answer(Protocol):
    """What a statement has led to."""

    @property
    def rowcount(self) -> int:
        """How many rows it has changed or returned."""
        ...

    def fetchone(self) -> Sequence[Any] | None:
        """Return the next row."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Foreign(Protocol):
    """A connection of another driver. What that raises comes as the psycopg.Error that means the same."""

    @property
    def original(self) -> Any:
        """The driver's own connection."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it is closed, or known to be lost."""
        ...

    @property
    def can_copy(self) -> bool:
        """Whether all text can be sent by COPY."""
        ...

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction is open, broken or not."""
        ...

    @property
    def is_broken(self) -> bool:
        """Whether a statement has failed in the open transaction, which can only be rolled back."""
        ...

    def run(self, statement: str, values: Mapping[str, object]) -> Answer:
        """Run *statement*, whose parameters are ``%(name)s``, as a part of whatever transaction is open."""
        ...

    def copy(self, statement: str, blocks: Iterable[str]) -> None:
        """Run a COPY FROM STDIN of *blocks*, as a part of whatever transaction is open."""
        ...

    def transaction(self) -> AbstractContextManager[object]:
        """Do what is done in the block as a whole, or not at all.

        It is a savepoint, unless the connection is autocommit and in no transaction: then it is a transaction.
        """
        ...


Lent = psycopg.Connection[Any] | Foreign
"""Whatever a statement can be run on."""
