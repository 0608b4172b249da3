"""The work that is timed, the same for every peer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.benchmarks import contract

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.benchmarks.peers.peer import Peer

# Jobs before the first one that counts: connections, plans and caches are warm after them.
_WARM_UP = 20


class _Clock:
    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._cpu_began = time.process_time()

    def stop(self, jobs: int) -> contract.Answer:
        seconds = time.perf_counter() - self._began
        return {"seconds": seconds, "jobs": jobs, "cpu_seconds": time.process_time() - self._cpu_began}


async def drain(peer: Peer, jobs: int) -> contract.Answer:
    """Time the worker from its start until the last of *jobs* loaded jobs is final in the database."""
    await peer.add_many(jobs)
    await peer.run_sql("vacuum (analyze)")
    clock = _Clock()
    async with peer.working():
        await peer.arrivals.wait_for(jobs)
        await _until_final(peer)
        answer = clock.stop(jobs)
    await _check_all_done(peer, jobs)
    return answer


async def enqueue(peer: Peer, jobs: int) -> contract.Answer:
    """Time *jobs* calls by one caller, each with a commit of its own."""
    for _ in range(_WARM_UP):
        await peer.add(time.monotonic_ns())
    clock = _Clock()
    for _ in range(jobs):
        await peer.add(time.monotonic_ns())
    return clock.stop(jobs)


async def bulk(peer: Peer, jobs: int) -> contract.Answer:
    """Time the loading of *jobs* jobs at once."""
    await peer.add_many(_WARM_UP)
    clock = _Clock()
    await peer.add_many(jobs)
    return clock.stop(jobs)


async def latency(peer: Peer, jobs: int, feeder: Sequence[str]) -> contract.Answer:
    """Tell how long *jobs* jobs took from the call that enqueued them until their handler started.

    *feeder* is the Python program that enqueues: another process, so that it shares no event loop with the worker.
    """
    async with peer.working():
        process = await asyncio.create_subprocess_exec(sys.executable, *feeder, stdout=subprocess.DEVNULL)
        if status := await process.wait():
            raise RuntimeError(f"the feeder ended with status {status}")
        await peer.arrivals.wait_for(_WARM_UP + jobs)
        await _until_final(peer)
    await _check_all_done(peer, _WARM_UP + jobs)
    return contract.percentiles([took / 1e9 for took in peer.arrivals.nanoseconds[_WARM_UP:]])


async def feed(peer: Peer, jobs: int, rate: float) -> contract.Answer:
    """Enqueue *jobs* jobs, *rate* of them a second, after those that do not count."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(_WARM_UP + jobs):
        await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
        await peer.add(time.monotonic_ns())
    return {"jobs": jobs}


async def _until_final(peer: Peer) -> None:
    for _ in range(60_000):
        if not await peer.run_sql(peer.any_left):
            return
        await asyncio.sleep(0.001)
    raise TimeoutError("jobs that ran do not become final")


async def _check_all_done(peer: Peer, jobs: int) -> None:
    ran, done = len(peer.arrivals.nanoseconds), await peer.run_sql(peer.count_done)
    if (ran, done) != (jobs, jobs):
        raise RuntimeError(f"of {jobs} jobs, {ran} ran and {done} are done")
