"""procrastinate, as its guides have it (https://procrastinate.readthedocs.io/en/stable/howto/).

A batch is the worker's `concurrency` (production/concurrency.html): it fetches one job after the other, and finishes as
many at a time. The pool is as it makes one: ten or twenty connections drained no faster than its four. Finished jobs
are kept, the default: deleting them (`delete_jobs`) took as long. Single jobs are deferred by the synchronous connector
on the caller's connection (production/external_connection.html), at a third of the CPU time of the pool; many by
`batch_defer` (basics/batch_defer.html).
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from tests.benchmarks.peers import command
from tests.benchmarks.peers.peer import PsycopgPeer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_TASK: Final = "noop"


def is_installed() -> bool:
    return command.is_installed("procrastinate", "psycopg")


def version() -> str:
    return command.version_of("procrastinate")


class ProcrastinatePeer(PsycopgPeer):
    any_left = "select exists (select from procrastinate_jobs where status <> 'succeeded')"
    count_done = "select count(*) from procrastinate_jobs where status = 'succeeded'"

    async def open(self) -> None:
        import psycopg
        from procrastinate import App, PsycopgConnector, SyncPsycopgConnector

        await super().open()
        self._app = App(connector=PsycopgConnector(conninfo=self.dsn))
        self._task = self._app.task(name=_TASK)(self._handle)
        await self.stack.enter_async_context(self._app.open_async())
        # Never opened, as the caller's connection is all that it uses.
        self._caller = App(connector=SyncPsycopgConnector(conninfo=self.dsn))
        self._callers_connection = self.stack.enter_context(psycopg.connect(self.dsn, autocommit=True))

    async def install(self) -> None:
        await self._app.schema_manager.apply_schema_async()

    async def add(self, sent: int) -> None:
        self._caller.configure_task(_TASK, connection=self._callers_connection).defer(sent=sent)

    async def add_many(self, jobs: int) -> None:
        await self._task.batch_defer_async(*({"sent": 0} for _ in range(jobs)))

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        options = self.batch_as("concurrency")
        async with asyncio.TaskGroup() as tasks:
            worker = tasks.create_task(self._app.run_worker_async(install_signal_handlers=False, **options))
            yield
            worker.cancel()

    async def _handle(self, sent: int) -> None:
        self.arrivals.note(sent)


if __name__ == "__main__":
    sys.exit(command.main("procrastinate", ProcrastinatePeer))
