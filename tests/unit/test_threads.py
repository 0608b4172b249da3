"""Threads that their owners start, stop and join."""

import contextvars
import threading
from datetime import timedelta

import pytest

from jobqueue.threads import Backoff, StoppableThread, seconds_of

PATIENCE = 10


class Waiter(StoppableThread):
    """Waits until it is stopped."""

    def __init__(self) -> None:
        super().__init__("jobqueue-waiter")
        self.began = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()
        self.seen: object = None

    def run(self) -> None:
        self.seen = variable.get(None)
        self.began.set()
        self._stopping.wait()
        self.may_end.wait()


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


def test_it_runs_from_start_to_stop():
    """A thread runs after start, and until stop."""
    thread = Waiter()
    assert not thread.is_alive
    thread.start()
    assert thread.began.wait(PATIENCE)
    assert thread.is_alive
    thread.stop()
    assert thread.join(PATIENCE)
    assert not thread.is_alive


def test_stop_is_safe_twice_and_before_start():
    """Stopping only asks: before start it ends the thread as soon as it runs."""
    thread = Waiter()
    thread.stop()
    thread.stop()
    thread.start()
    assert thread.join(PATIENCE)


def test_join_of_a_thread_that_was_never_started():
    """There is nothing to wait for."""
    assert Waiter().join()


def test_join_says_when_the_thread_has_not_ended():
    """Join waits as long as it is told to, and tells the truth."""
    thread = Waiter()
    thread.may_end.clear()
    thread.start()
    thread.stop()
    assert not thread.join(0.05)
    thread.may_end.set()
    assert thread.join(PATIENCE)


def test_join_by_the_thread_itself_does_not_block():
    """A thread that joins itself is told that it has not ended."""
    answers: list[object] = []

    class Narcissus(StoppableThread):
        def run(self) -> None:
            answers.extend([self.is_current, self.join()])

    thread = Narcissus("jobqueue-narcissus")
    assert not thread.is_current
    thread.start()
    assert thread.join(PATIENCE)
    assert answers == [True, False]


def test_with_starts_stops_and_joins():
    """The block is the life of the thread, also when it ends by an error."""
    thread = Waiter()
    with thread:
        assert thread.began.wait(PATIENCE)
    assert not thread.is_alive
    other = Waiter()
    with pytest.raises(ZeroDivisionError), other:
        raise ZeroDivisionError
    assert not other.is_alive


def test_it_starts_once():
    """A thread that has ended cannot be started again."""
    with Waiter() as thread:
        pass
    with pytest.raises(RuntimeError):
        thread.start()


def test_it_is_a_named_daemon():
    """It has a name to find it by, and cannot keep the interpreter alive."""
    thread = Waiter()
    assert thread.name == thread._thread.name == "jobqueue-waiter"
    assert thread._thread.daemon


def test_it_runs_in_the_context_of_its_making():
    """A thread sees the context variables that its maker saw."""
    token = variable.set("made here")
    try:
        thread = Waiter()
    finally:
        variable.reset(token)
    with thread:
        assert thread.began.wait(PATIENCE)
    assert thread.seen == "made here"


def test_start_and_stop_under_stress():
    """However start and stop follow each other, the thread ends."""
    for _ in range(200):
        thread = Waiter()
        thread.start()
        thread.stop()
        assert thread.join(PATIENCE)


def test_a_loop_survives_its_errors(caplog):
    """A step that fails is logged, and the loop goes on; once the thread is to stop, nobody hears of it."""

    class Loop(StoppableThread):
        steps = 0

        def run(self) -> None:
            while self.steps < 4:
                self._attempt(self.step)

        def step(self) -> None:
            self.steps += 1
            if self.steps == 3:
                self.stop()
            if self.steps != 2:
                raise ValueError(f"step {self.steps}")

    thread = Loop("jobqueue-loop")
    thread.start()
    assert thread.join(PATIENCE)
    assert thread.steps == 4
    assert "step 1" in caplog.text
    assert "step 3" not in caplog.text


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [(None, None), (0, 0), (1.5, 1.5), (timedelta(minutes=2), 120), (-1, -1), (1e20, None), (float("inf"), None)],
)
def test_how_long_to_wait(timeout, seconds):
    """A timeout is a number of seconds or a timedelta; none, or more than a thread can wait, is for ever."""
    assert seconds_of(timeout) == seconds


def test_a_timeout_that_is_no_number():
    """NaN, which would be neither soon nor late, is refused."""
    with pytest.raises(ValueError, match="NaN"):
        seconds_of(float("nan"))


def test_backoff_doubles_up_to_its_cap():
    """Each wait is between half and all of its step; the steps double, and end at the cap."""
    backoff = Backoff(first=1, cap=5)
    waits = [backoff.next() for _ in range(6)]
    for wait, step in zip(waits, [1, 2, 4, 5, 5, 5], strict=True):
        assert step / 2 <= wait <= step


def test_backoff_starts_over():
    """After a success the first step comes again."""
    backoff = Backoff(first=1, cap=5)
    for _ in range(4):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 1
