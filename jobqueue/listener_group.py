"""Groups of listeners: who is told apart from whom, and who is not disturbed when somebody leaves."""

import threading
from types import BuiltinMethodType, MethodType, MethodWrapperType
from typing import Final, Generic, TypeVar

_T = TypeVar("_T")

_METHODS: Final = (MethodType, BuiltinMethodType, MethodWrapperType)


class ListenerGroup(Generic[_T]):
    """Listeners in the order in which they came; one that came twice is there twice.

    They are told apart by identity, so that anything that can be called can be removed again; the method of an object
    is the same, too, although Python makes a new one each time. Whoever walks over them is not disturbed.
    """

    def __init__(self, *methods: str) -> None:
        self._methods = methods
        self._lock = threading.Lock()
        self.all: tuple[_T, ...] = ()

    def add(self, listener: _T) -> None:
        """Add it. Raises TypeError when it has not the methods by which to hear."""
        check_listener(listener, *self._methods)
        with self._lock:
            self.all += (listener,)

    def remove(self, listener: _T) -> None:
        """Remove it, once; nothing happens if it is not there."""
        with self._lock:
            for place, other in enumerate(self.all):
                if _is_same(other, listener):
                    self.all = self.all[:place] + self.all[place + 1 :]
                    return

    def clear(self) -> None:
        """Remove all."""
        with self._lock:
            self.all = ()

    def has(self, listener: _T) -> bool:
        """Whether it is there."""
        return any(_is_same(other, listener) for other in self.all)


def check_listener(listener: object, *methods: str) -> None:
    """Raise TypeError unless *listener* has all of *methods*."""
    if lacking := [name for name in methods if not callable(getattr(listener, name, None))]:
        raise TypeError(f"a listener here needs {' and '.join(lacking)}, which {listener!r:.60} has not")


def _is_same(one: object, other: object) -> bool:
    # Methods compare their objects by identity; anything else may compare as it likes, and is not asked.
    return one is other or (type(one) is type(other) and type(one) in _METHODS and one == other)
