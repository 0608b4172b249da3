"""oban, as its guide to queues has it (https://oban.pro/docs/py/0.5.0/defining_queues.html).

A batch is the queue's `limit`. The `debounce_interval`, after which it acknowledges and fetches in bulk, is the default
of 5 ms: with 1, 20 and 50 ms it drained no faster. The pool is as it makes one: ten connections are enough for any
limit (https://oban.pro/docs/py/0.5.0/production.html). Single jobs are enqueued on the caller's connection,
`enqueue(job, conn=...)`.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.benchmarks.peers import command
from tests.benchmarks.peers.peer import PsycopgPeer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


def is_installed() -> bool:
    return command.is_installed("oban")


def version() -> str:
    return command.version_of("oban")


class ObanPeer(PsycopgPeer):
    any_left = "select exists (select from oban_jobs where state <> 'completed')"
    count_done = "select count(*) from oban_jobs where state = 'completed'"

    async def open(self) -> None:
        from oban import Oban, job

        await super().open()
        self._pool = await Oban.create_pool(self.dsn)
        self.stack.push_async_callback(self._pool.close)
        self._client = Oban(pool=self._pool, name="client")
        self._noop = job(queue="default")(self._make_handler())

    async def install(self) -> None:
        from oban import schema

        await schema.install(self._pool)

    async def add(self, sent: int) -> None:
        await self._client.enqueue(self._noop.new(sent), conn=self.connection)

    async def add_many(self, jobs: int) -> None:
        await self._client.enqueue_many(self._noop.new(0) for _ in range(jobs))

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        from oban import Oban

        async with Oban(pool=self._pool, queues={"default": self.batch_as("limit")}):
            yield

    def _make_handler(self) -> Callable[[int], Awaitable[None]]:
        # It has to be a function: its name is how a worker finds it.
        async def noop(sent: int) -> None:
            self.arrivals.note(sent)

        return noop


if __name__ == "__main__":
    sys.exit(command.main("oban", ObanPeer))
