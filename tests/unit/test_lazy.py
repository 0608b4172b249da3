import subprocess
import sys
import threading

import pytest

import jobqueue
from jobqueue import ClosedError, JobQueueError, UnavailableError
from jobqueue.contrib.lazy import LazyService
from tests.fixtures.waiting import wait_until

PATIENCE = 10


class Maker:
    """Makes services, as often as it is asked to, when the gate is open; counts how often."""

    def __init__(self):
        self.made = []
        self.gate = threading.Event()
        self.gate.set()
        self.errors = []
        self.entered = threading.Semaphore(0)

    def __call__(self):
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        if self.errors:
            raise self.errors.pop()
        self.made.append(jobqueue.connect("memory://"))
        return self.made[-1]


@pytest.fixture
def maker():
    made = Maker()
    yield made
    for service in made.made:
        if "closed" not in repr(service):
            service.close()


def ask_in_threads(lazy, number):
    """Ask in so many threads; return these, and what came of it, which is complete when they have ended."""
    came_to = []

    def ask():
        try:
            came_to.append(lazy())
        except JobQueueError as error:
            came_to.append(error)

    threads = [threading.Thread(target=ask) for _ in range(number)]
    for thread in threads:
        thread.start()
    return threads, came_to


def test_made_once_when_it_is_needed(maker):
    """Nothing is made before the first call; all calls return the same."""
    lazy = LazyService(maker)
    assert not lazy.is_made
    assert maker.made == []
    assert lazy() is lazy()
    assert lazy.is_made
    assert len(maker.made) == 1


def test_threads_wait_for_the_one_that_makes_it(maker):
    """Threads that ask while it is made get the same service."""
    maker.gate.clear()
    lazy = LazyService(maker)
    threads, came_to = ask_in_threads(lazy, 3)
    assert maker.entered.acquire(timeout=PATIENCE)
    maker.gate.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert came_to == maker.made * 3
    assert len(maker.made) == 1


def test_an_error_is_raised_to_all_who_asked(maker):
    """An error while it is made reaches every thread that waits; the next call tries again."""
    maker.gate.clear()
    maker.errors.append(UnavailableError("no database"))
    lazy = LazyService(maker)
    threads, came_to = ask_in_threads(lazy, 1)
    assert maker.entered.acquire(timeout=PATIENCE)
    others, came_to_others = ask_in_threads(lazy, 2)
    making = lazy._here().making
    wait_until(lambda: len(making.outcome._condition._waiters) == 2)
    maker.gate.set()
    for thread in (*threads, *others):
        thread.join(PATIENCE)
    assert [str(error) for error in came_to + came_to_others] == ["no database"] * 3
    assert not lazy.is_made
    assert lazy() is maker.made[0]


def test_asked_for_by_what_makes_it():
    """A function that asks for the service that it is to make is told so, where it would wait for itself."""

    def make():
        return lazy()

    lazy = LazyService(make)
    with pytest.raises(JobQueueError, match="asked for by what makes it"):
        lazy()


def test_closing(maker):
    """Closing makes nothing, and closes what was made; the next call makes another."""
    lazy = LazyService(maker)
    lazy.close()
    assert maker.made == []
    first = lazy()
    lazy.close()
    with pytest.raises(ClosedError):
        first.get_status()
    assert not lazy.is_made
    assert lazy() is not first


def test_closing_what_its_owner_has_closed(maker):
    """A service that was closed by hand is no obstacle."""
    lazy = LazyService(maker)
    lazy().close()
    lazy.close()
    assert not lazy.is_made


def test_closing_while_it_is_made(maker):
    """What is made too late is closed, and who has asked for it is told."""
    maker.gate.clear()
    lazy = LazyService(maker)
    threads, came_to = ask_in_threads(lazy, 1)
    assert maker.entered.acquire(timeout=PATIENCE)
    lazy.close()
    maker.gate.set()
    threads[0].join(PATIENCE)
    assert [type(error) for error in came_to] == [ClosedError]
    with pytest.raises(ClosedError):
        maker.made[0].get_status()
    assert not lazy.is_made


FORKING = """
import os, sys, threading
import jobqueue
from jobqueue.contrib.lazy import LazyService

class Told(type(jobqueue.connect("memory://"))):
    def close(self):
        print("closed in", "parent" if os.getpid() == parent else "child", flush=True)
        super().close()

def make():
    service = jobqueue.connect("memory://")
    service.__class__ = Told
    return service

parent = os.getpid()
lazy = LazyService(make)
inherited = lazy()
gone = threading.Lock()
if how == "locked":
    lazy._here().lock.acquire()
child = os.fork()
if child == 0:
    assert not lazy.is_made
    assert lazy() is not inherited
    sys.exit(0)
if how == "locked":
    lazy._here().lock.release()
assert os.waitpid(child, 0)[1] == 0
assert lazy() is inherited
"""


@pytest.mark.parametrize("how", ["usual", "locked"])
def test_a_forked_child(how):
    """A child makes its own, whatever was locked at the fork; each process closes at its exit what it has made."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"how = {how!r}\n{FORKING}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["closed in child", "closed in parent"]
