"""``jobqueue worker``: real supervisors and worker processes, which are killed, told to end, and started anew."""

import os
import resource
import shutil
import signal
import urllib.error
import urllib.request
from contextlib import closing

import pytest

import jobqueue_pg
from jobqueue import State
from tests.fixtures.commands import SET_UP, WORKING_APP
from tests.fixtures.servers import free_port
from tests.fixtures.waiting import wait_until
from tests.fixtures.workers import wait_for_end

PATIENCE = 20


@pytest.fixture
def service(migrated):
    with closing(jobqueue_pg.connect(migrated, origin="tests")) as service:
        yield service


@pytest.fixture
def started(command_line):
    """Starts a supervisor, and waits until its processes are ready."""

    def start(*args):
        command = command_line.start("worker", *args, "--ready-file", "ready")
        wait_until((command_line.directory / "ready").exists, PATIENCE, message="being ready")
        return command

    return start


def pid_of(command_line, name):
    """Wait until a job holds on, and return the process that it holds on in."""
    [began] = wait_until(lambda: list(command_line.directory.glob(f"{name}.began.*")), PATIENCE)
    return int(began.suffix[1:])


def is_there(pid):
    """Whether a process is there that may be nobody's child."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def status_of(port, path="/"):
    """Return what a probe is answered; 0: nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_a_process_that_is_killed_is_replaced_and_its_job_runs_again(command_line, started, service):
    """The log says how it has died; until there is another one, probes are told that not all is ready."""
    port = free_port()
    closed = command_line.directory / "closed"
    text = "\nwhile Path('closed').exists():\n    threading.Event().wait(0.01)\n"
    command_line.write("app_with_a_door", WORKING_APP + SET_UP + text)
    command = started("app_with_a_door", "--processes", "2", "--threads", "1", "--ready-port", str(port))
    before = command.children
    assert (len(before), status_of(port), status_of(port, "/live")) == (2, 200, 200)
    job = service.enqueue("hold", "one")
    victim = pid_of(command_line, "one")
    closed.touch()
    os.kill(victim, signal.SIGKILL)
    ready = command_line.directory / "ready"
    wait_until(lambda: not ready.exists() and status_of(port) == 503, PATIENCE)
    assert status_of(port, "/live") == 200
    closed.unlink()
    (command_line.directory / "one.may-end").touch()
    ended = wait_for_end(service, job, PATIENCE)
    assert (ended.state, ended.rescue_count) == (State.SUCCEEDED, 1)
    wait_until(lambda: ready.exists() and status_of(port) == 200, PATIENCE)
    after = command.children
    assert len(after) == 2
    assert before - after == {victim}
    assert f"worker process {victim} has ended (killed by SIGKILL)" in command.said
    command.signal(signal.SIGTERM)
    assert (command.wait(), ready.exists()) == (0, False)


def test_sigterm_lets_running_jobs_finish(command_line, started, service):
    """What runs goes on and is saved, nothing more is claimed, and the exit code is 0."""
    text = """
@jobqueue.handler("outlast")
def outlast(ctx: jobqueue.JobContext, name: str) -> int:
    Path(f"{name}.began.{os.getpid()}").touch()
    while len([each for each in threading.enumerate() if each.name.startswith("jobqueue-worker-")]) > 1:
        threading.Event().wait(0.01)
    Path(f"{name}.outlasts").touch()
    return hold(ctx, name)
"""
    command_line.write("outlasting_app", WORKING_APP + text)
    command = started("outlasting_app", "--threads", "2")
    job = service.enqueue("outlast", "one")
    [child] = command.children
    assert pid_of(command_line, "one") == child
    command.signal(signal.SIGTERM)
    # The thread that has no job ends when the process has heard of it.
    wait_until((command_line.directory / "one.outlasts").exists, PATIENCE)
    other = service.enqueue("add", {"a": 1, "b": 2})
    (command_line.directory / "one.may-end").touch()
    assert command.wait() == 0
    assert service.get_job(job.id).result == child
    assert service.get_job(other.id).state is State.AVAILABLE


def test_a_second_sigterm_lets_jobs_go(command_line, started, service):
    """A job that holds on is released, for other processes to take at once, and the exit code says so."""
    command = started("app", "--finish-within", "1h")
    job = service.enqueue("hold", "one")
    pid_of(command_line, "one")
    command.signal(signal.SIGTERM)
    wait_until(lambda: "SIGTERM" in command.said)
    command.signal(signal.SIGTERM)
    assert command.wait() == 3
    assert service.get_job(job.id).state is State.AVAILABLE


def test_a_third_sigterm_kills(command_line, started, service):
    """A process that does nothing any more is killed at once, and its job waits to be rescued."""
    command = started("app", "--finish-within", "1h")
    job = service.enqueue("hold", "one")
    os.kill(pid_of(command_line, "one"), signal.SIGSTOP)
    for number, done in enumerate(("ending", "hurried", "hurried"), start=1):
        command.signal(signal.SIGTERM)
        said = f"SIGTERM: worker processes are {done}"
        wait_until(lambda number=number, said=said: said in command.said and command.said.count("SIGTERM") == number)
    assert command.wait() == 3
    assert service.get_job(job.id).state is State.RUNNING
    assert "Traceback" not in command.said


def test_the_time_to_finish_is_limited(command_line, started, service):
    """After --finish-within, jobs are let go without another signal."""
    command = started("app", "--finish-within", "0")
    job = service.enqueue("hold", "one")
    pid_of(command_line, "one")
    command.signal(signal.SIGINT)
    assert command.wait() == 3
    assert service.get_job(job.id).state is State.AVAILABLE


def test_no_process_outlives_its_supervisor(command_line, started, service):
    """When a supervisor is killed, its processes end by themselves, and give their jobs back."""
    command = started("app", "--finish-within", "0")
    job = service.enqueue("hold", "one")
    pid_of(command_line, "one")
    children = command.children
    assert len(children) == 1
    command.discard()
    for child in children:
        wait_until(lambda child=child: not is_there(child), PATIENCE)
    assert service.get_job(job.id).state is State.AVAILABLE


def test_sighup_starts_processes_anew_one_after_the_other(command_line, started):
    """All are replaced, the next one when the one before is ready."""
    command = started("app", "--processes", "2")
    before = command.children
    command.signal(signal.SIGHUP)
    wait_until(lambda: len(command.lives) == 6, 2 * PATIENCE)
    lives = command.lives[2:]
    assert [what for _, what in lives] == ["has ended", "is ready"] * 2
    assert {pid for pid, what in lives if what == "has ended"} == before
    assert len(command.children) == 2
    command.signal(signal.SIGTERM)
    assert command.wait() == 0


@pytest.mark.parametrize("code", [0, 7])
def test_a_process_that_dies_at_once_is_started_less_and_less_often(command_line, code):
    """Each time, the pause is twice as long; when no process was ever ready, the command ends after the fourth one."""
    command_line.write("dying", f"import os; os._exit({code})")
    command = command_line.start("worker", "dying")
    assert command.wait() == 1
    for pause in ("0.5", "1.0", "2.0"):
        assert command.said.count(f"has ended (exit code {code}): another one starts in {pause} s") == 1
    ended = f"no worker process was ready in 4 tries: the last one has ended (exit code {code})"
    assert command.said.splitlines()[-1] == f"Error: {ended}"


def test_a_supervisor_ends_when_told_so_while_no_process_starts(command_line):
    """It waits for no further try, and the exit code is 0."""
    command_line.write("dying", "import os; os._exit(7)")
    command = command_line.start("worker", "dying")
    wait_until(lambda: "starts in 1.0 s" in command.said, PATIENCE)
    command.signal(signal.SIGTERM)
    assert command.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_module_that_is_being_imported_holds_up_no_end(command_line, number):
    """A command that is told to end while its processes begin ends at once, and without an error."""
    text = "import pathlib, threading; pathlib.Path('began').touch(); threading.Event().wait()"
    command_line.write("slow", text)
    command = command_line.start("worker", "slow")
    wait_until((command_line.directory / "began").exists, PATIENCE)
    command.signal(number)
    assert command.wait() == 0
    assert [line for line in command.said.splitlines() if " INFO " not in line] == []


def test_threads_of_the_application_hold_up_no_end(command_line, started):
    """A process whose jobs have ended ends, with code 0 although a thread of its module goes on; it is logged."""
    text = "\nthreading.Thread(target=threading.Event().wait, name='for-ever').start()\n"
    command_line.write("threaded", WORKING_APP + text)
    command = started("threaded", "--finish-within", "1h")
    command.signal(signal.SIGTERM)
    assert command.wait() == 0
    assert "threads go on at the end of the process, which ends without them: for-ever" in command.said


def test_a_module_that_starts_threads(command_line, started, service):
    """A module that starts threads wherever it is loaded has the pool of the command alone, and the log says so."""
    text = """
@jobqueue.handler("count")
def count(ctx: jobqueue.JobContext, number: int) -> int:
    return len([each for each in threading.enumerate() if each.name.startswith("jobqueue-worker-")])

jobqueue.start_threads(3)
"""
    command_line.write("web_app", WORKING_APP + SET_UP + text)
    command = started("web_app", "--threads", "2")
    assert wait_for_end(service, service.enqueue("count", 1), PATIENCE).result == 2
    command.signal(signal.SIGTERM)
    assert command.wait() == 0
    assert command.said.count("start_threads(3) starts nothing in this process, where `jobqueue worker` runs") == 1


def test_nobody_is_ready_while_the_database_is_away(command_line, started, server):
    """Probes are told so, and that it is back; no process ends for that."""
    command_line.environment["JOBQUEUE_DSN"] = server.conninfo
    command = started("quick_app")
    ready = command_line.directory / "ready"
    server.stop("immediate")
    wait_until(lambda: not ready.exists(), PATIENCE)
    server.start()
    wait_until(ready.exists, PATIENCE)
    assert len(command.children) == 1
    assert "has ended" not in command.said
    command.signal(signal.SIGTERM)
    assert command.wait() == 0


def test_what_the_user_has_to_change_is_told_in_a_line(command_line):
    """A module that cannot be imported ends all processes, with one line and exit code 1."""
    command_line.write("broken", "import there_is_no_such_module")
    command = command_line.start("worker", "broken", "--processes", "2")
    assert command.wait() == 1
    [line] = [line for line in command.said.splitlines() if "supervising" not in line]
    assert line.startswith("Error: module 'broken' cannot be imported: ModuleNotFoundError: ")
    assert line.endswith("broken.py, line 1)")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of other processes are Linux's")
def test_what_fails_in_the_supervisor_costs_no_job(command_line, service):
    """A process that cannot be started, and a file that cannot be changed, are logged; the other works on."""
    shown = command_line.directory / "shown"
    shown.mkdir()
    command = command_line.start("worker", "app", "--processes", "2", "--threads", "1", "--ready-file", "shown/ready")
    wait_until((shown / "ready").exists, PATIENCE)
    job = service.enqueue("hold", "one")
    busy = pid_of(command_line, "one")
    [idle] = command.children - {busy}
    before = resource.prlimit(command.pid, resource.RLIMIT_NOFILE, (5, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    shutil.rmtree(shown)
    shown.touch()  # no directory any more
    os.kill(idle, signal.SIGKILL)
    wait_until(lambda: "no worker process can be started ([Errno 24] Too many open files): tried" in command.said)
    assert "readiness cannot be shown (processes are not ready): " in command.said
    resource.prlimit(command.pid, resource.RLIMIT_NOFILE, before)
    wait_until(lambda: len(command.children) == 2, PATIENCE)
    (command_line.directory / "one.may-end").touch()
    command.signal(signal.SIGTERM)
    assert command.wait() == 0
    assert service.get_job(job.id).result == busy
