"""A PostgreSQL server of one's own comes, answers, and leaves nothing behind."""

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobqueue_pg import embedded
from jobqueue_pg.embedded import EmbeddedServer, EmbeddedServerError, find_bindir
from tests.fixtures.processes import heed_ctrl_c
from tests.fixtures.waiting import wait_until

PATIENCE = 30
CHILD = """
import sys
from jobqueue_pg.embedded import EmbeddedServer
server = EmbeddedServer(sys.argv[1])
server.start()
print(server.pid, server.conninfo, flush=True)
if "fork" in sys.argv:
    import os, signal
    if os.fork() == 0:
        signal.alarm(60)  # should the test not come to end it
        signal.pause()
sys.stdin.read()
server.stop()
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture(scope="module")
def bindir() -> Path:
    return find_bindir()


@pytest.fixture
def temp_dirs(tmp_path_factory, monkeypatch) -> Iterator[Path]:
    """Where servers make their temporary directories; open to everybody, which `tmp_path` is not."""
    tmp_path_factory.getbasetemp()  # which is made at its first use, in what tempfile names then
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o777)
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield place


def answer(server: EmbeddedServer, query: str):
    with closing(psycopg.connect(server.conninfo, autocommit=True)) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_starts_answers_and_leaves_nothing(bindir, temp_dirs):
    """A server answers while it runs; then its process, its port and its files are gone."""
    with EmbeddedServer(bindir) as server:
        pid, port = server.pid, server.port
        assert answer(server, "select 1") == 1
        assert answer(server, "show fsync") == "off"
        assert answer(server, "show listen_addresses") == "127.0.0.1"
        assert list(temp_dirs.iterdir())
    assert not is_alive(pid)
    assert not is_listening(port)
    assert list(temp_dirs.iterdir()) == []


def test_stops_in_spite_of_open_sessions(bindir):
    """Sessions that are open, and busy, are ended with the server."""
    server = EmbeddedServer(bindir)
    server.start()
    with closing(psycopg.connect(server.conninfo)) as connection:
        connection.execute("create table t as select 1")
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")


def test_stop_is_safe_twice_and_before_start(bindir):
    """A server that never ran is stopped at once; one that was stopped can be started again."""
    server = EmbeddedServer(bindir)
    server.stop()
    with pytest.raises(EmbeddedServerError, match="not running"):
        server.conninfo  # noqa: B018
    for _ in range(2):
        server.start()
        with pytest.raises(EmbeddedServerError, match="already"):
            server.start()
        assert answer(server, "select 1") == 1
        server.stop()
        server.stop()


def test_two_servers_at_once(bindir):
    """Servers of one process do not meet."""
    with EmbeddedServer(bindir) as one, EmbeddedServer(bindir) as other:
        assert one.port != other.port
        assert answer(one, "select 1") == answer(other, "select 1") == 1


def test_outlives_the_thread_that_started_it(bindir):
    """The server ends with its process, not with the thread that happened to start it."""
    server = EmbeddedServer(bindir)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    try:
        assert answer(server, "select pg_sleep(1) is not null")
    finally:
        server.stop()


@pytest.mark.parametrize("extra", [[], ["fork"]], ids=["alone", "with a forked child that holds the pipe"])
def test_a_killed_parent_leaves_nothing(bindir, tmp_path, extra):
    """The server of a process that is killed with SIGKILL is gone within seconds, with its files."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, bindir, *extra],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    with child:
        assert child.stdout is not None
        assert child.stdin is not None
        pid, conninfo = child.stdout.readline().split()
        with closing(psycopg.connect(conninfo)) as connection:
            connection.execute("select 1")
            assert is_alive(int(pid))
            child.kill()
            child.wait()
            wait_until(lambda: not is_alive(int(pid)), PATIENCE, message="the server's end")
        wait_until(lambda: not list(tmp_path.iterdir()), PATIENCE, message="the removal of its files")
        if extra:
            os.killpg(child.pid, signal.SIGKILL)


def test_ctrl_c_is_for_the_program(bindir):
    """An interrupt from the terminal reaches a program, and not its server: it can still clear up."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, bindir],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,  # noqa: PLW1509 - it takes no lock
    )
    with child:
        assert child.stdout is not None
        pid = int(child.stdout.readline().split()[0])
        assert os.getpgid(pid) != os.getpgid(child.pid)
        os.killpg(child.pid, signal.SIGINT)
        child.wait(PATIENCE)
        wait_until(lambda: not is_alive(pid), PATIENCE, message="the server's end")


def test_kept_data_survive(bindir, tmp_path):
    """A second server in the same directory finds what the first one stored, and is durable."""
    data_dir = tmp_path / "data"
    with EmbeddedServer(bindir, data_dir=data_dir) as server:
        port = server.port
        assert answer(server, "show fsync") == "on"
        with closing(psycopg.connect(server.conninfo, autocommit=True)) as connection:
            connection.execute("create table kept as select 42 as answer")
    with EmbeddedServer(bindir, data_dir=data_dir, port=port) as server:
        assert server.port == port
        assert answer(server, "select answer from kept") == 42


def test_kept_data_survive_a_killed_server(bindir, tmp_path):
    """The files that a killed server leaves do not keep the next one from starting, nor make it look ready too soon."""
    data_dir = tmp_path / "data"
    # PostgreSQL 13's autovacuum launcher takes up to a minute to notice that its parent is gone.
    with EmbeddedServer(bindir, data_dir=data_dir, settings={"autovacuum": "off"}) as server:
        pid = server.pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), message="the server's end")
    server = EmbeddedServer(bindir, data_dir=data_dir)

    def starts() -> bool:
        try:
            server.start()
        except EmbeddedServerError:
            return False  # the killed server's children are still about to notice
        return True

    wait_until(starts, PATIENCE, message="the start of the next server")
    assert answer(server, "select 1") == 1
    server.stop()


def test_data_in_use_are_refused(bindir, tmp_path):
    """Two servers never share a directory; the refused one says why."""
    data_dir = tmp_path / "data"
    with EmbeddedServer(bindir, data_dir=data_dir) as server:
        with pytest.raises(EmbeddedServerError, match=r"postmaster\.pid"):
            EmbeddedServer(bindir, data_dir=data_dir).start()
        assert answer(server, "select 1") == 1


def test_a_taken_port_is_left_to_its_owner(bindir, monkeypatch):
    """A port that another program took meanwhile costs another try, not the start."""
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        taken = owner.getsockname()[1]
        free = iter([taken, embedded._free_port()])
        monkeypatch.setattr(embedded, "_free_port", lambda: next(free))
        with EmbeddedServer(bindir) as server:
            assert server.port != taken
        with pytest.raises(EmbeddedServerError, match="could not bind"):
            EmbeddedServer(bindir, port=taken).start()


def test_the_log_tells_why(bindir, temp_dirs):
    """A server that does not start shows its log, and leaves nothing."""
    with pytest.raises(EmbeddedServerError, match="no_such_setting"):
        EmbeddedServer(bindir, settings={"no_such_setting": "1"}).start()
    assert list(temp_dirs.iterdir()) == []


def test_a_directory_of_something_else_is_left_alone(bindir, tmp_path):
    """A directory that holds something else is not initialised."""
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(EmbeddedServerError, match="not empty"):
        EmbeddedServer(bindir, data_dir=tmp_path).start()
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_no_programs(tmp_path):
    """A directory without PostgreSQL in it is named."""
    with pytest.raises(EmbeddedServerError, match=str(tmp_path)):
        EmbeddedServer(tmp_path).start()


@needs_root
def test_root_without_user_namespaces(bindir, temp_dirs, monkeypatch):
    """Where root may not make a user namespace, the server runs as nobody; kept data are nobody's too."""
    monkeypatch.setattr(embedded, "_NAMESPACE", ("false",))
    for _ in range(2):
        with EmbeddedServer(bindir, data_dir=temp_dirs / "kept") as server:
            assert Path(f"/proc/{server.pid}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
            assert answer(server, "select 1") == 1


@needs_root
def test_root_with_programs_that_nobody_can_reach(bindir, temp_dirs, tmp_path, monkeypatch):
    """Programs in a directory that is closed to nobody are copied."""
    package = tmp_path / "closed" / bindir.parents[1].name
    shutil.copytree(bindir.parent, package / bindir.parent.name, symlinks=True)
    libraries = bindir.parents[2] / f"{bindir.parents[1].name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, tmp_path / "closed" / libraries.name)
    (tmp_path / "closed").chmod(0o700)
    monkeypatch.setattr(embedded, "_NAMESPACE", ("false",))
    with EmbeddedServer(package / bindir.parent.name / "bin") as server:
        assert answer(server, "select 1") == 1
    assert list(temp_dirs.iterdir()) == []


@needs_root
def test_as_another_user(bindir, temp_dirs):
    """Who is not root starts a server too, and it runs as that user."""
    environment = {
        **os.environ,
        "TMPDIR": str(temp_dirs),
        "HOME": str(temp_dirs),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    nobody: dict[str, Any] = {
        "user": "nobody",
        "group": pwd.getpwnam("nobody").pw_gid,
        "extra_groups": (),
        "env": environment,
        "cwd": "/",
    }
    python = python_for(nobody)
    programs = bindir if runs([bindir / "postgres", "--version"], nobody) else None
    if python is None or programs is None:
        pytest.skip("nobody may run neither this Python nor the system's, or not PostgreSQL")
    child = subprocess.Popen(
        [python, "-c", CHILD, programs], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **nobody
    )
    with child:
        assert child.stdout is not None
        assert child.stdin is not None
        pid, conninfo = child.stdout.readline().split()
        assert Path(f"/proc/{pid}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
        with closing(psycopg.connect(conninfo)) as connection:
            connection.execute("select 1")
        child.stdin.close()
        assert child.wait(PATIENCE) == 0
    assert not is_alive(int(pid))
    assert list(temp_dirs.iterdir()) == []


def python_for(user) -> str | None:
    # An interpreter in root's home directory is closed to others; the system's may do when it is of the same version.
    for python in (sys.executable, "/usr/bin/python3"):
        if runs([python, "-c", "import jobqueue_pg.embedded"], user):
            return python
    return None


def runs(command, user) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True, **user).returncode == 0
    except OSError:
        return False


def test_bindir_from_the_environment(tmp_path, monkeypatch):
    """JOBQUEUE_PG_BINDIR comes first; when it is wrong, nothing else is taken in its place."""
    monkeypatch.setenv("JOBQUEUE_PG_BINDIR", str(tmp_path))
    with pytest.raises(EmbeddedServerError, match="JOBQUEUE_PG_BINDIR"):
        find_bindir()
    (tmp_path / "initdb").touch()
    assert find_bindir() == tmp_path


def test_bindir_on_the_path(tmp_path, monkeypatch):
    """Without the packages, initdb on the PATH tells where the programs are; links are followed."""
    hide_packages(monkeypatch)
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "initdb").touch(mode=0o755)
    (tmp_path / "initdb").symlink_to(tmp_path / "real" / "initdb")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_bindir() == tmp_path / "real"


def test_no_bindir(tmp_path, monkeypatch):
    """When nothing is found, the error names the extra that brings it."""
    hide_packages(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedServerError, match=r"jobqueue\[embedded\]"):
        find_bindir()


def hide_packages(monkeypatch):
    monkeypatch.delenv("JOBQUEUE_PG_BINDIR", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
