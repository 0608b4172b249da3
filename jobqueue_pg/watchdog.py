"""Run a PostgreSQL server for another process: stop it, and clear up, when that process asks or dies.

`EmbeddedServer` starts this file by its path in a fresh interpreter, so it may import nothing but the standard library.
It is the server's parent and outlives whatever kills its own, which works alike on every platform: Linux could kill the
server itself (PR_SET_PDEATHSIG), but does so already when the *thread* that started it ends, and leaves the files.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO, NamedTuple

START_PATIENCE = 60.0
POLL_INTERVAL = 0.02
PARENT_CHECK_INTERVAL = 0.5
# Fast shutdown (sessions are ended), immediate shutdown (recovery at the next start), no shutdown at all.
WAYS_TO_STOP = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))


class Order(NamedTuple):
    """What to run, and for whom."""

    parent: int
    prepare: list[list[str]]
    serve: list[str]
    user: int | None
    group: int | None
    data_dir: str
    temp_dir: str


class Watchdog:
    """Carries out one order."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._asked = False

    def run(self) -> int:
        """Start the server, say so on the standard output, wait, stop; return the exit status."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._ask)
        log_file = Path(self._order.temp_dir, "log")
        try:
            with log_file.open("wb") as log:
                ready = self._serve(log)
            if not ready:
                sys.stdout.write(log_file.read_text(errors="replace"))
            return 0 if ready else 1
        finally:
            shutil.rmtree(self._order.temp_dir, ignore_errors=True)

    def _serve(self, log: BinaryIO) -> bool:
        for command in self._order.prepare:
            if self._popen(command, log).wait() != 0:
                return False
        server = self._popen(self._order.serve, log)
        try:
            if not self._wait_until_ready(server):
                return False
            sys.stdout.write(f"ready {server.pid}\n")
            sys.stdout.flush()
            while server.poll() is None and not self._is_unwanted(PARENT_CHECK_INTERVAL):
                pass
            return True
        finally:
            self._stop(server)

    def _popen(self, command: list[str], log: BinaryIO) -> "subprocess.Popen[bytes]":
        groups = None if self._order.user is None else ()
        return subprocess.Popen(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            user=self._order.user,
            group=self._order.group,
            extra_groups=groups,
        )

    def _wait_until_ready(self, server: "subprocess.Popen[bytes]") -> bool:
        pid_file = Path(self._order.data_dir, "postmaster.pid")
        deadline = time.monotonic() + START_PATIENCE
        while time.monotonic() < deadline and server.poll() is None:
            with contextlib.suppress(OSError):
                lines = pid_file.read_text().split()
                # The file of a server that was killed is still there when its data are used again.
                if lines[:1] == [str(server.pid)] and lines[-1] == "ready":
                    return True
            if self._is_unwanted(POLL_INTERVAL):
                break
        return False

    def _is_unwanted(self, timeout: float) -> bool:
        # A closed pipe tells at once, but a child that the parent forked may hold it open; its pid never lies.
        asked = self._asked or bool(select.select([sys.stdin], [], [], timeout)[0])
        return asked or os.getppid() != self._order.parent

    def _stop(self, server: "subprocess.Popen[bytes]") -> None:
        for number, patience in WAYS_TO_STOP:
            server.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(patience)
                return

    def _ask(self, *_: object) -> None:
        self._asked = True


if __name__ == "__main__":
    sys.exit(Watchdog(Order(**json.loads(sys.argv[1]))).run())
