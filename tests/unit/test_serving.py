import contextvars
import logging
import os
import sys
import threading
import types

import pytest

from jobqueue import ClosedError, UnavailableError
from jobqueue.contrib.serving import ServingThreads
from jobqueue.worker import process
from tests.fixtures.waiting import wait_until

PATIENCE = 10


class Start:
    """Is called by the threads under test; tells in which thread, how often, and what was in its context."""

    def __init__(self):
        self.calls = []
        self.errors = []
        self.called = threading.Event()

    def __call__(self):
        self.calls.append(threading.current_thread().name)
        if self.errors:
            raise self.errors.pop()
        self.called.set()


@pytest.fixture
def start():
    return Start()


@pytest.fixture
def serving(start):
    made = ServingThreads(start)
    yield made
    made.close()


def loaded_by(module, function, load, **variables):
    """Call *load* as a server does: in a *function* of its *module*, which has these *variables*."""
    names = ", ".join(variables)
    space = {"__name__": module, "get_debug_flag": lambda: variables.get("debug", False)}
    exec(f"def {function}(load, {names}):\n    load()\n    return after()\n", space)
    seen = []
    space["after"] = lambda: seen.append(True)
    space[function](load, **variables)
    assert seen


def is_started(start):
    return start.called.wait(PATIENCE)


def is_never_started(serving, start):
    """Nothing has begun that could start something."""
    return serving._thread is None and not start.calls


def test_nothing_without_a_server(serving, start):
    """An application that is loaded by anybody, as by this test, is not served."""
    serving.arm()
    assert is_never_started(serving, start)


def test_a_request_starts(serving, start):
    """The first request starts, in a thread of its own; those after it do not."""
    serving.arm()
    serving.on_request()
    serving.on_request()
    assert is_started(start)
    serving.on_request()
    assert start.calls == ["jobqueue-starting"]


def test_a_request_in_a_worker_process(serving, start, monkeypatch, caplog):
    """A request that a job makes of the application starts nothing beside the pool that runs it, and says nothing."""
    monkeypatch.setattr(process, "_program", None)
    process.leave_threads_to("jobqueue worker")
    serving.arm()
    serving.on_request()
    assert is_never_started(serving, start)
    assert caplog.messages == []


def test_no_start_after_the_end(serving, start):
    """Who starts what was closed is told so; that a request comes is no error."""
    serving.arm()
    serving.close()
    with pytest.raises(ClosedError, match="was closed"):
        serving.start()
    serving.on_request()
    assert is_never_started(serving, start)


def test_the_context_of_the_request_stays_behind(start):
    """What is started is in no context of a request, which ends before it does."""
    request = contextvars.ContextVar("request", default=None)
    seen = []
    serving = ServingThreads(lambda: (seen.append(request.get()), start()))
    request.set("a request")
    serving.on_request()
    assert is_started(start)
    assert seen == [None]
    serving.close()


def test_a_server_that_loads(serving, start):
    """A server starts without any request, but not before the application is loaded."""

    def load():
        serving.arm()
        wait_until(lambda: serving._thread is not None)
        for _ in range(3):
            assert not start.called.wait(0.02)

    loaded_by("waitress.runner", "run", load)
    assert is_started(start)


@pytest.mark.parametrize(
    ("reload", "debug", "child", "serves"),
    [
        (None, False, None, True),
        (None, True, None, False),
        (None, True, "true", True),
        (True, False, None, False),
        (True, False, "true", True),
        (False, True, None, True),
    ],
)
def test_flask_run(serving, start, monkeypatch, reload, debug, child, serves):
    """``flask run`` serves in its own process, or, with the reloader on, in the child alone."""
    if child is not None:
        monkeypatch.setenv("WERKZEUG_RUN_MAIN", child)
    loaded_by("flask.cli", "run_command", serving.arm, reload=reload, debug=debug)
    assert is_started(start) if serves else is_never_started(serving, start)


@pytest.mark.parametrize(
    ("arguments", "variable", "serves"),
    [
        (["runserver"], None, False),
        (["runserver"], "RUN_MAIN", True),
        (["runserver", "8000", "--noreload"], None, True),
        (["runserver_plus"], "WERKZEUG_RUN_MAIN", True),
        (["migrate"], None, False),
        (["shell"], "RUN_MAIN", False),
        (["test"], None, False),
    ],
)
def test_manage_py(serving, start, monkeypatch, arguments, variable, serves):
    """``runserver`` serves, in the reloader's child if there is one; other commands do not."""
    if variable is not None:
        monkeypatch.setenv(variable, "true")
    of_django = types.SimpleNamespace(argv=["manage.py", *arguments])
    loaded_by("django.core.management", "execute", serving.arm, subcommand=arguments[0], self=of_django)
    assert is_started(start) if serves else is_never_started(serving, start)


def uwsgi(monkeypatch, worker, **options):
    """Be in uWSGI: in the worker of a number, or with 0 in none."""
    module = types.SimpleNamespace(opt=options, worker_id=lambda: module.worker, worker=worker)
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    return module


def test_uwsgi_that_forks(serving, start, monkeypatch):
    """What uWSGI has loaded before it forks starts in its workers, after what else was to be told of the fork."""
    module = uwsgi(monkeypatch, 0, **{"enable-threads": True})
    told = []
    module.post_fork_hook = lambda: told.append("other")
    serving.arm()
    module.post_fork_hook()
    assert told == ["other"]
    assert is_never_started(serving, start)  # in a mule
    module.worker = 1
    module.post_fork_hook()
    assert is_started(start)


def test_uwsgi_that_loads_in_its_workers(start, monkeypatch):
    """What uWSGI loads in a worker (lazy-apps) starts there when it is loaded."""
    uwsgi(monkeypatch, 2, threads=b"2")
    serving = ServingThreads(start)
    loaded = threading.Event()

    def load():
        serving.arm()
        assert not start.called.wait(0.1)
        loaded.set()

    thread = threading.Thread(target=load)
    thread.start()
    assert loaded.wait(PATIENCE)
    thread.join(PATIENCE)
    assert is_started(start)
    serving.close()


@pytest.mark.parametrize(
    ("options", "warned"), [({}, True), ({"threads": b"2"}, False), ({"enable-threads": 1}, False)]
)
def test_uwsgi_without_threads(serving, monkeypatch, caplog, options, warned):
    """A uWSGI that runs without threads is warned of: worker threads would stand still between requests."""
    uwsgi(monkeypatch, 0, **options)
    serving.arm()
    assert ("--enable-threads" in caplog.text) is warned


def test_a_database_that_does_not_answer_yet(serving, start, caplog):
    """What the database does not let start is started when it does; meanwhile, each reason is told once."""
    start.errors = [UnavailableError("it\nsleeps")] * 2
    serving.on_request()
    assert is_started(start)
    assert len(start.calls) == 3
    assert caplog.messages == ["worker threads cannot start yet: it sleeps"]


def test_an_error_of_the_application(serving, start, caplog):
    """What cannot start for another reason is not tried again, and its error is logged."""
    start.errors = [ValueError("no")]
    serving.on_request()
    wait_until(lambda: caplog.messages)
    serving._thread.join(PATIENCE)
    assert len(start.calls) == 1
    assert caplog.records[0].levelno == logging.ERROR
    assert "ValueError: no" in caplog.text


def test_closed_before_it_has_started(serving, start):
    """What was closed starts no more, not even with a request."""
    serving.close()
    serving.on_request()
    assert is_never_started(serving, start)


def test_closed_while_the_database_does_not_answer(serving, start):
    """Closing ends the thread that tries to start."""
    start.errors = [UnavailableError("no")] * 1000
    serving.on_request()
    wait_until(lambda: start.calls)
    serving.close()
    assert not serving._thread.is_alive


def test_started_by_hand(serving, start):
    """For servers that nobody recognises, it is started by hand, once."""
    serving.start()
    serving.start()
    assert is_started(start)
    assert len(start.calls) == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_that_is_no_worker(serving, start):
    """A process that was forked from one that had started does not start by that; it would by a request."""
    serving.arm()
    serving.on_request()
    assert is_started(start)
    child = os.fork()
    if child == 0:
        os._exit(0 if len(start.calls) == 1 and serving._process != os.getpid() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
