"""Methods of the service that change rows, of which an integration may be told."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, Final, ParamSpec, TypeVar

from jobqueue.queue_service.opened import Opened

_S = TypeVar("_S", bound=Opened)
_P = ParamSpec("_P")
_R = TypeVar("_R")

TOLD_OF: Final = "_is_told_of"
"""The attribute by which a method shows that it is decorated; those that add jobs tell of it by themselves."""


def changing(method: Callable[Concatenate[_S, _P], _R]) -> Callable[Concatenate[_S, _P], _R]:
    """Have those who watch told of each call of *method* that has changed something: it does not return 0, say."""
    name = method.__name__

    @wraps(method)
    def change(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        result = method(self, *args, **kwargs)
        if result is None or result:
            self.note_change(name)
        return result

    setattr(change, TOLD_OF, True)
    return change
