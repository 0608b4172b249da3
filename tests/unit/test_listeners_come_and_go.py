"""Listeners that are added and removed, by whatever can be called, also while an event is told."""

import threading
from functools import partial
from typing import Any

import attrs
import pytest

from jobqueue.health import Health
from jobqueue.listeners import Listeners
from tests.fixtures.listeners import BUNDLE, JOB, Heard


@pytest.fixture
def listeners():
    return Listeners(Health())


class Callable:
    def __init__(self, heard: Heard) -> None:
        self.heard = heard

    def __call__(self, *_: object) -> None:
        self.heard.append(type(self).__name__)


class Unhashable(Callable):
    __hash__ = None

    def __eq__(self, other: object) -> bool:
        return True


class Incomparable(Callable):
    __hash__ = None

    def __eq__(self, other: object) -> bool:
        raise AssertionError("nobody asks a listener whether it equals another")


class Slotted(Callable):
    __slots__ = ("heard",)


@attrs.frozen
class EqualByValue:
    number: int

    def __call__(self, *_: object) -> None: ...


def test_listeners_are_called_in_the_order_in_which_they_came(listeners):
    """Also when one of them was removed, and came again."""
    heard = Heard()
    first, second, third = (heard.noting(str(number)) for number in (1, 2, 3))
    for listener in (first, second, third):
        listeners.of_jobs.add(listener)
    listeners.of_jobs.remove(first)
    listeners.of_jobs.add(first)
    listeners.tell_job(JOB, will_retry=False)
    assert heard == ["2", "3", "1"]


def a_builtin_method(heard: Heard) -> Any:
    return lambda: heard.append


def a_method(heard: Heard) -> Any:
    return lambda: heard.hear_job


def a_special_method(heard: Heard) -> Any:
    listener = Callable(heard)
    return lambda: listener.__call__


def a_special_method_of_a_function(heard: Heard) -> Any:
    listener = heard.noting("function")
    return lambda: listener.__call__


def one_of(kind: Any) -> Any:
    def make(heard: Heard) -> Any:
        listener = kind(heard)
        return lambda: listener

    return make


@pytest.mark.parametrize(
    "form",
    [
        one_of(lambda heard: heard.noting("lambda")),
        one_of(lambda heard: partial(heard.append)),
        one_of(Callable),
        one_of(Unhashable),
        one_of(Incomparable),
        one_of(Slotted),
        a_method,
        a_builtin_method,
        a_special_method,
        a_special_method_of_a_function,
    ],
)
def test_anything_that_can_be_called_can_be_removed(listeners, form):
    """Whatever its kind, and whatever it says of its equality, a listener is removed, and none but it."""
    heard, others = Heard(), Heard()
    same = form(heard)
    for listener in (Incomparable(others), same(), Unhashable(others), form(Heard())()):
        listeners.of_bundles.add(listener)
    listeners.tell_bundle(BUNDLE)
    assert len(heard) == 1
    listeners.of_bundles.remove(same())
    listeners.tell_bundle(BUNDLE)
    assert len(heard) == 1
    assert others == ["Incomparable", "Unhashable"] * 2


def test_methods_of_equal_objects_are_not_the_same(listeners):
    """Two lists may be equal, and two listeners too: they are still two."""
    first, second = [], []
    listeners.of_bundles.add(first.append)
    listeners.of_bundles.remove(second.append)
    listeners.of_jobs.add(EqualByValue(1))
    listeners.of_jobs.remove(EqualByValue(1))
    assert len(listeners.of_bundles.all) == len(listeners.of_jobs.all) == 1


def test_a_listener_that_came_twice_has_to_go_twice(listeners):
    """Added twice it hears twice, removed once it hears once; removing what is not there does nothing."""
    heard = Heard()
    listener = heard.noting("x")
    for _ in range(2):
        listeners.of_jobs.add(listener)
    for expected in (2, 3, 3, 3):
        listeners.tell_job(JOB, will_retry=False)
        assert len(heard) == expected
        listeners.of_jobs.remove(listener)


def test_a_listener_removes_itself_while_it_hears(listeners):
    """It hears nothing more, and the others hear the event."""
    heard = Heard()

    def once(*_: object) -> None:
        heard.append("once")
        listeners.of_jobs.remove(once)

    for listener in (heard.noting("before"), once, heard.noting("after")):
        listeners.of_jobs.add(listener)
    for _ in range(2):
        listeners.tell_job(JOB, will_retry=False)
    assert heard == ["before", "once", "after", "before", "after"]


def test_who_is_removed_while_an_event_is_told_does_not_hear_it(listeners):
    """When a remove has returned, the removed listener is not called any more: by nobody, and for no event."""
    heard = Heard()
    later = heard.noting("later")
    hearing, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        hearing.set()
        assert go_on.wait(10)

    for listener in (slow, later, heard.noting("last")):
        listeners.of_jobs.add(listener)
    telling = threading.Thread(target=lambda: listeners.tell_job(JOB, will_retry=False))
    telling.start()
    assert hearing.wait(10)
    listeners.of_jobs.remove(later)
    go_on.set()
    telling.join(10)
    assert heard == ["last"]


def test_who_comes_while_an_event_is_told_hears_the_next_one(listeners):
    """A listener that adds another one does not go on for ever."""
    heard = Heard()
    listeners.of_jobs.add(lambda *_: listeners.of_jobs.add(heard.noting("new")))
    listeners.tell_job(JOB, will_retry=False)
    assert heard == []
    listeners.tell_job(JOB, will_retry=False)
    assert heard == ["new"]


def test_listeners_come_and_go_in_many_threads(listeners):
    """Nobody is lost, nobody stays, while events are told all the time."""
    stay = Heard()
    listeners.of_jobs.add(stay.hear_job)
    together = threading.Barrier(5)

    def come_and_go() -> None:
        together.wait(10)
        for _ in range(300):
            listener = Heard().noting("x")
            listeners.of_jobs.add(listener)
            listeners.of_jobs.remove(listener)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    together.wait(10)
    for _ in range(300):
        listeners.tell_job(JOB, will_retry=False)
    for thread in threads:
        thread.join(10)
    assert len(stay) == 300
    assert len(listeners.of_jobs.all) == 1


@pytest.mark.parametrize("wrong", [None, 1, "f", object()])
def test_who_cannot_hear_is_refused(listeners, wrong):
    """A listener that cannot be called is a TypeError at once, not an error in a thread some day."""
    for group in (listeners.of_jobs, listeners.of_bundles):
        with pytest.raises(TypeError, match="__call__"):
            group.add(wrong)
    with pytest.raises(TypeError, match="on_job_stopped and on_job_bundle_stopped"):
        listeners.of_service.add(wrong)
    with pytest.raises(TypeError, match="__call__"):
        listeners.set_of_bundle_type("b", wrong)
    assert not listeners.kinds


def test_half_a_service_listener_is_refused(listeners):
    """The error names the method that lacks."""

    class Half:
        def on_job_stopped(self, *_: object) -> None: ...

    with pytest.raises(TypeError, match="needs on_job_bundle_stopped, which"):
        listeners.of_service.add(Half())
