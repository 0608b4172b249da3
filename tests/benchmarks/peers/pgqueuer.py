"""pgqueuer, as its guide to performance has it (https://janbjorge.github.io/pgqueuer/guides/performance-tuning/).

The driver is asyncpg, the faster one (https://janbjorge.github.io/pgqueuer/comparisons/benchmarks/); the worker has one
connection to itself. A batch is its `batch_size`, which is also how many completions it buffers, for a tenth of a
second at most. Its settings for autovacuum are applied. Its durability is the default, `durable`: the others leave
tables out of the log. The guide has a pool for callers; a single one is served by one connection at half of the CPU
time, and gets that.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from tests.benchmarks.peers import command
from tests.benchmarks.peers.peer import Peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pgqueuer import Job

_ENTRYPOINT: Final = "noop"


def is_installed() -> bool:
    return command.is_installed("pgqueuer", "asyncpg")


def version() -> str:
    return command.version_of("pgqueuer")


class PgQueuerPeer(Peer):
    any_left = "select exists (select from pgqueuer)"
    count_done = "select count(*) from pgqueuer_log where status = 'successful'"

    async def open(self) -> None:
        import asyncpg
        from pgqueuer import AsyncpgDriver, PgQueuer, Queries

        self._connection = await asyncpg.connect(self.dsn)
        self.stack.push_async_callback(self._connection.close)
        worker_connection = await asyncpg.connect(self.dsn)
        self.stack.push_async_callback(worker_connection.close)
        self._queries = Queries(AsyncpgDriver(self._connection))
        self._worker = PgQueuer.from_asyncpg_connection(worker_connection)
        self._worker.entrypoint(_ENTRYPOINT, accepts_context=False)(self._handle)

    async def install(self) -> None:
        await self._queries.install()
        await self._queries.optimize_autovacuum()

    async def add(self, sent: int) -> None:
        await self._queries.enqueue(_ENTRYPOINT, b"%d" % sent)

    async def add_many(self, jobs: int) -> None:
        await self._queries.enqueue([_ENTRYPOINT] * jobs, [b"0"] * jobs, [0] * jobs)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._worker.run(**self.batch_as("batch_size")))
            yield
            self._worker.shutdown.set()

    async def run_sql(self, statement: str) -> object:
        return await self._connection.fetchval(statement)

    async def _handle(self, job: Job) -> None:
        self.arrivals.note(int(job.payload or b"0"))


if __name__ == "__main__":
    sys.exit(command.main("pgqueuer", PgQueuerPeer))
