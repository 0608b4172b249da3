"""Where a chaos run plays: the server, the networks in front of it, and the processes that use it."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, LiteralString, Self

import psycopg

import jobqueue_pg
from jobqueue_pg.embedded import EmbeddedServer, find_bindir
from tests.fixtures.fault_proxy import FaultProxy
from tests.fixtures.waiting import wait_until
from tests.integration.chaos_parts.evidence import take_evidence
from tests.integration.chaos_parts.recorder import Recorder

# What was committed must survive the crash of the server, if not that of the machine.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "on",
    "max_connections": "200",
    "track_commit_timestamp": "on",
}
# Below the ports that connections get by themselves, one of which could take ours while the server is down.
_PORTS = range(20_000, 30_000)
_KINDS_OF_WORKERS: Sequence[Mapping[str, Any]] = (
    {"threads": 4, "batch_size": 64, "lanes": {}, "django": True},
    {"threads": 6, "batch_size": 64, "lanes": {"steady": 1, "tick:*": 1}, "django": True},
    {"threads": 3, "batch_size": 64, "lanes": {}, "django": False},
)
_SMART_PATIENCE = 1.0
PATIENCE = 60.0


class Process:
    """A program of the run; it ends when its stdin is closed."""

    def __init__(self, program: str, conninfo: str, log: IO[str], **options: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.integration.chaos_parts.{program}", conninfo, json.dumps(options)],
            stdin=subprocess.PIPE,
            stderr=log,
            cwd=Path(__file__).resolve().parents[3],
        )
        self.pid = self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it, if it is still there."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it, and wait until it is dead."""
        self._process.kill()
        self.retire()
        self._process.wait(PATIENCE)

    def retire(self) -> None:
        """Ask it to end, and do not wait."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def finish(self) -> int:
        """Have it end by itself; return its exit status, which is negative if it had to be killed."""
        self.retire()
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.returncode


class Scene:
    """All that there is in a run. In a ``with``, it is there, and leaves no process behind."""

    def __init__(self, directory: Path, *, seed: int, workers: int) -> None:
        self.directory = directory
        self.recorder = Recorder(directory, "scene")
        self._num_workers = workers
        self._seed = seed
        self._stack = ExitStack()
        self._server = EmbeddedServer(find_bindir(), data_dir=directory / "data", port=_free_port(), settings=_SETTINGS)
        self.is_serving = False
        """Whether the server was started, and not stopped since."""
        self._processes: list[Process] = []
        self.retired: list[Process] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.recorder.close)
            self._log = stack.enter_context((self.directory / "log").open("a"))
            stack.callback(self._server.stop)
            self.start_server()
            self.conninfo = self._server.conninfo
            port = self._server.port
            jobqueue_pg.migrate(self.conninfo)
            take_evidence(self.conninfo)
            networks = [stack.enter_context(FaultProxy("127.0.0.1", port)) for _ in range(self._num_workers + 1)]
            self.client_network, *self.worker_networks = networks
            stack.callback(self._kill_all)
            self.traffic = self._start("traffic_program", self.client_network.route(self.conninfo), enqueuers=3)
            self.go = self._start("go_program", self.conninfo)
            self.workers = [self._start_worker(number) for number in range(self._num_workers)]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def networks(self) -> list[FaultProxy]:
        """Each worker process has one to itself; the enqueuers share one."""
        return [self.client_network, *self.worker_networks]

    # --- processes

    def _start_worker(self, number: int) -> Process:
        """Start a worker process on the network of that *number*: with few threads or more, reserved or for all."""
        conninfo = self.worker_networks[number].route(self.conninfo)
        return self._start("worker_program", conninfo, **_KINDS_OF_WORKERS[number % len(_KINDS_OF_WORKERS)])

    def _start(self, program: str, conninfo: str, **options: Any) -> Process:
        process = Process(program, conninfo, self._log, directory=str(self.directory), seed=self._seed, **options)
        self._processes.append(process)
        return process

    def kill_worker(self, worker: Process) -> None:
        """Kill a worker as the kernel does when memory is short, and start another one."""
        worker.kill()
        self.recorder.note("worker killed", worker=worker.pid)
        number = self.workers.index(worker)
        self.workers[number] = self._start_worker(number)

    def replace_worker(self, worker: Process) -> None:
        """Ask a worker to end, as a deployment does, and start another one."""
        worker.retire()
        self.retired.append(worker)
        number = self.workers.index(worker)
        self.workers[number] = self._start_worker(number)

    def _kill_all(self) -> None:
        with ExitStack() as stack:  # all of them, though one does not die
            for process in self._processes:
                stack.callback(process.kill)

    # --- the server

    def start_server(self) -> None:
        """Start the server, and write down since when it hears."""
        self._server.start()
        with closing(psycopg.connect(self._server.conninfo)) as connection:
            row = connection.execute("select extract(epoch from pg_postmaster_start_time())::float8").fetchone()
        assert row is not None
        self.recorder.note("server started", since=row[0])
        self.is_serving = True

    def stop_server(self, way: signal.Signals) -> None:
        """Stop the server: smart (SIGTERM, which becomes fast when sessions do not end), fast, or immediate."""
        self.is_serving = False
        pid = self._server.pid
        os.kill(pid, way)
        if way == signal.SIGTERM:
            with suppress(AssertionError):
                wait_until(lambda: _is_gone(pid), _SMART_PATIENCE)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        wait_until(lambda: _is_gone(pid), PATIENCE, message="the end of the server")
        self._server.stop()

    def ask(self, statement: LiteralString) -> list[Any]:
        """Run a statement beside the networks; nothing when the server does not answer."""
        with suppress(psycopg.Error), closing(self._connect()) as connection:
            return connection.execute(statement).fetchall()
        return []

    def lock(self, statement: LiteralString) -> "psycopg.Connection[Any] | None":
        """Return a session that holds the rows of *statement* locked, if nobody else does, and there is a server."""
        with suppress(psycopg.Error), ExitStack() as stack:
            session = stack.enter_context(closing(self._connect()))
            session.execute("set lock_timeout = '1s'")
            session.execute("begin")
            session.execute(statement)
            stack.pop_all()
            return session
        return None

    def _connect(self) -> "psycopg.Connection[Any]":
        return psycopg.connect(self.conninfo, autocommit=True, connect_timeout=5)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _free_port() -> int:
    for port in random.SystemRandom().sample(_PORTS, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port was found")
