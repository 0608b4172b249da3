"""On what a run was made: without it, its figures mean nothing."""

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psycopg

from tests.benchmarks.server import Server

_PACKAGES: Final = ("jobqueue", "psycopg", "psycopg-pool", "attrs", "cattrs")
_SYNCS: Final = 100
_PAGE: Final = b"\0" * 8192


def description(server: Server) -> Mapping[str, Any]:
    """Return what is known of the machine, of the server, and of the versions of everything."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "fdatasync_us": round(_microseconds_to_sync()),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{package: version(package) for package in _PACKAGES},
        "psycopg_implementation": psycopg.pq.__impl__,
        "libpq": psycopg.pq.version(),
        "postgresql": server.version,
        "settings": dict(server.settings),
    }


def text_of(described: Mapping[str, Any]) -> str:
    """Return it for people."""
    settings = ", ".join(f"{name} {value}" for name, value in described["settings"].items())
    packages = ", ".join(f"{name} {described[name]}" for name in _PACKAGES)
    peers = ", ".join(f"{name} {number}" for name, number in described.get("peers", {}).items())
    return "\n".join(
        [
            f"machine     {described['processor']}, {described['cores']} cores, {described['memory_gb']} GB",
            f"system      {described['system']}",
            f"disk        fdatasync of a page {described['fdatasync_us']} us (median)",
            f"load        {described['load_before']} before the run",
            f"python      {described['python']}, {packages} ({described['psycopg_implementation']})",
            f"postgresql  {described['postgresql']}: {settings}",
            f"peers       {peers or 'none installed'}",
        ]
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _microseconds_to_sync() -> float:
    """Write a page and have it synced, as a commit does, where a server of our own would keep its files."""
    took: list[float] = []
    with tempfile.TemporaryFile() as file:
        for _ in range(_SYNCS):
            began_at = time.perf_counter()
            os.pwrite(file.fileno(), _PAGE, 0)
            getattr(os, "fdatasync", os.fsync)(file.fileno())
            took.append(time.perf_counter() - began_at)
    return statistics.median(took) * 1e6
