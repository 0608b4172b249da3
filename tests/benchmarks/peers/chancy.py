"""chancy, as its reference has it (https://tkte.ch/chancy/).

A batch is the queue's `concurrency`, on the asyncio executor, with `eager_polling`: without, it looks for more jobs
only once in each polling interval. Outcomes are kept back for `send_outgoing_interval`, a second by default; with 10 ms
it drained fastest. Of its plugins those that keep its promises run (leadership, recovery, pruning); metrics and
workflows, on by default, do not: they doubled the CPU time of a job. It logs warnings only, not every job
(https://tkte.ch/chancy/howto/log.html). Jobs are pushed by its synchronous calls, at half of the CPU time of the
others.
"""

from __future__ import annotations

import logging
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from tests.benchmarks.peers import command
from tests.benchmarks.peers.peer import Arrivals, PsycopgPeer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_SEND_OUTGOING_INTERVAL: Final = 0.01


def is_installed() -> bool:
    return command.is_installed("chancy")


def version() -> str:
    return command.version_of("chancy")


class ChancyPeer(PsycopgPeer):
    any_left = "select exists (select from chancy_jobs where state <> 'succeeded')"
    count_done = "select count(*) from chancy_jobs where state = 'succeeded'"

    async def open(self) -> None:
        from chancy import Chancy, Job
        from chancy.plugins.leadership import Leadership
        from chancy.plugins.pruner import Pruner
        from chancy.plugins.recovery import Recovery

        await super().open()
        _Handler.arrivals = self.arrivals
        self._job = Job
        self._chancy = Chancy(self.dsn, no_default_plugins=True, plugins=[Leadership(), Recovery(), Pruner()])
        self._chancy.log.setLevel(logging.WARNING)
        await self.stack.enter_async_context(self._chancy)
        self.stack.enter_context(self._chancy)

    async def install(self) -> None:
        from chancy import Queue

        await self._chancy.migrate()
        options = self.batch_as("concurrency")
        queue = Queue("default", executor=self._chancy.Executor.Async, eager_polling=True, **options)
        await self._chancy.declare(queue)

    async def add(self, sent: int) -> None:
        self._chancy.sync_push(self._job.from_func(noop, kwargs={"sent": sent}))

    async def add_many(self, jobs: int) -> None:
        # It is lazy: a batch of a thousand is pushed when it is asked for.
        for _ in self._chancy.sync_push_many([self._job.from_func(noop, kwargs={"sent": 0}) for _ in range(jobs)]):
            pass

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        from chancy import Worker

        worker = Worker(self._chancy, register_signal_handlers=False)
        worker.send_outgoing_interval = _SEND_OUTGOING_INTERVAL
        async with worker:
            yield


class _Handler:
    """What the handler knows of its peer: it has to be a function of a module, by whose name a worker finds it."""

    arrivals: Arrivals


async def noop(sent: int) -> None:
    _Handler.arrivals.note(sent)


if __name__ == "__main__":
    sys.exit(command.main("chancy", ChancyPeer))
