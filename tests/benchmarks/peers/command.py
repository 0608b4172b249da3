"""What every peer's program does with its command line; the works are those of tests/benchmarks/contract.py.

It runs where the peer is installed and nothing of ours is, so neither it nor its neighbours import more than the
standard library until the work begins. Threads are ignored: these workers run jobs as tasks of one event loop, a batch
of them at a time. The loop is uvloop's where it is installed: pgqueuer and oban bring it with them, and their own
commands run on it; chancy is faster on it, too.

The caller who enqueues one job after another does so in the cheapest way that the library documents: where it takes the
caller's own connection, that one is in autocommit, which saves two round trips a job.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks import contract
from tests.benchmarks.peers import works

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from tests.benchmarks.peers.peer import Peer

# Longer than any work that is worth waiting for.
_LIMIT = 900.0


def is_installed(*modules: str) -> bool:
    """Tell whether all of these modules can be imported, without doing so."""
    return all(importlib.util.find_spec(module) for module in modules)


def version_of(distribution: str) -> str:
    """Return the version that is installed, or nothing."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def main(name: str, peer: Callable[[str, int | None], Peer]) -> int:
    """Do the work that the command line names with the *peer* of this *name*, and return the exit status."""
    # "feed" is the part of "latency" that runs in another process.
    return contract.run({work: partial(_run, name, peer, work) for work in (*contract.WORKS, "feed")})


def _run(name: str, peer: Callable[[str, int | None], Peer], work: str, options: argparse.Namespace) -> contract.Answer:
    with asyncio.Runner(loop_factory=_event_loop) as runner:
        return runner.run(_work(name, peer, work, options))


async def _work(
    name: str, make_peer: Callable[[str, int | None], Peer], work: str, options: argparse.Namespace
) -> contract.Answer:
    async with asyncio.timeout(_LIMIT), make_peer(options.dsn, options.batch) as peer:
        if work == "feed":
            return await works.feed(peer, options.jobs, options.rate)
        await peer.install()
        match work:
            case "drain":
                return await works.drain(peer, options.jobs)
            case "enqueue":
                return await works.enqueue(peer, options.jobs)
            case "bulk":
                return await works.bulk(peer, options.jobs)
            case _:
                return await works.latency(peer, options.jobs, _feeder(name, options))


def _feeder(name: str, options: argparse.Namespace) -> list[str]:
    module = f"tests.benchmarks.peers.{name}"
    return ["-m", module, "feed", options.dsn, "--jobs", str(options.jobs), "--rate", str(options.rate)]


def _event_loop() -> asyncio.AbstractEventLoop:
    if is_installed("uvloop"):
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop
    return asyncio.new_event_loop()
