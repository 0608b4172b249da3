"""What the benchmarks ask of another job queue, whichever it is; and what its handler saw."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager


class Arrivals:
    """The jobs that reached the handler, and how long each was on its way."""

    def __init__(self) -> None:
        self.nanoseconds: list[int] = []
        self._awaited = 0
        self._complete = asyncio.Event()

    def note(self, sent: int) -> None:
        """Take down a job that was *sent* at this moment of the machine's monotonic clock, in nanoseconds."""
        self.nanoseconds.append(time.monotonic_ns() - sent)
        if len(self.nanoseconds) == self._awaited:
            self._complete.set()

    async def wait_for(self, jobs: int) -> None:
        """Wait until *jobs* jobs have arrived."""
        self._awaited = jobs
        if len(self.nanoseconds) < jobs:
            await self._complete.wait()


class Peer(ABC):
    """Another job queue in a database of its own, by its public API alone, inside `async with`.

    Its one handler does nothing but note that a job has arrived. The payload of a job is the moment when it was sent.
    """

    any_left: ClassVar[str]
    """A statement that tells whether any job is not final yet."""
    count_done: ClassVar[str]
    """A statement that tells how many jobs ended well."""

    def __init__(self, dsn: str, batch: int | None) -> None:
        self.dsn = dsn
        self.batch = batch
        self.arrivals = Arrivals()
        self.stack = AsyncExitStack()

    @abstractmethod
    async def open(self) -> None:
        """Import the library, and connect; what has to be closed goes to *stack*."""

    @abstractmethod
    async def install(self) -> None:
        """Create the queue's tables."""

    @abstractmethod
    async def add(self, sent: int) -> None:
        """Enqueue one job, and commit."""

    @abstractmethod
    async def add_many(self, jobs: int) -> None:
        """Enqueue *jobs* jobs by the library's way to add many at once."""

    @abstractmethod
    def working(self) -> AbstractAsyncContextManager[None]:
        """Run the library's worker in this process."""

    @abstractmethod
    async def run_sql(self, statement: str) -> object:
        """Run a statement, and return the first column of its first row, if it has any."""

    def batch_as(self, option: str) -> dict[str, Any]:
        """Return the batch as the *option* of that name, or nothing if the library's default is wanted."""
        return {} if self.batch is None else {option: self.batch}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            opening.push_async_exit(self.stack)
            await self.open()
            opening.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stack.aclose()


class PsycopgPeer(Peer):
    """A peer whose driver is psycopg."""

    async def open(self) -> None:
        import psycopg

        self.connection = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
        self.stack.push_async_callback(self.connection.close)

    async def run_sql(self, statement: str) -> object:
        cursor = await self.connection.execute(statement.encode())
        row = await cursor.fetchone() if cursor.description else None
        return row[0] if row else None
