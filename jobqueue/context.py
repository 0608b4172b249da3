"""Which service is meant when none is named: the one in use in this context, or else the default one."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

from jobqueue.errors import NotInitializedError
from jobqueue.service import Service

_in_use: ContextVar[Service | None] = ContextVar("jobqueue_service", default=None)
_standing_in: ContextVar[Service | None] = ContextVar("jobqueue_stand_in", default=None)
_default: Service | None = None
_source: Callable[[], Service] | None = None


def set_default_service(service: Service) -> None:
    """Make *service* the one that the functions of this package work on, in every thread. Raises TypeError for None."""
    global _default  # noqa: PLW0603 - there is one default service in a process, as there is one root logger
    if service is None:  # pyright: ignore[reportUnnecessaryComparison] - not every caller is type-checked
        raise TypeError("the default service cannot be None: close() the old one instead")
    _default = service


def set_service_source(source: Callable[[], Service] | None) -> None:
    """Have *source* asked for the default service wherever none was set; None: nobody.

    For integrations: a framework says late, and perhaps differently in each place, which service is meant.
    """
    global _source  # noqa: PLW0603 - as above
    _source = source


@contextmanager
def use_service(service: Service) -> Generator[Service]:
    """Work on *service* within the ``with`` block, in this thread (or task) only."""
    token = _in_use.set(service)
    try:
        yield service
    finally:
        _in_use.reset(token)


@contextmanager
def standing_in(service: Service) -> Generator[None]:
    """Work on *service* within the ``with`` block, in this thread (or task), as long as there is no other."""
    token = _standing_in.set(service)
    try:
        yield
    finally:
        _standing_in.reset(token)


def make_current(service: Service) -> None:
    """Have *service* in use from here to the end of this context: for a run, which has a context of its own."""
    _in_use.set(service)


def current_service() -> Service:
    """Return the service in use here. Raises NotInitializedError when there is none."""
    service = _in_use.get() or _default or _sourced() or _standing_in.get()
    if service is None:
        raise NotInitializedError(
            "no job queue service yet: call jobqueue_pg.init_job_queue(conninfo) when the application starts, "
            "or jobqueue.set_default_service(service)"
        )
    return service


def default_service() -> Service:
    """Return the default service, whichever is in use here. Raises NotInitializedError when there is none."""
    service = _default or _sourced()
    if service is None:
        raise NotInitializedError("no default job queue service was set")
    return service


def _sourced() -> Service | None:
    return None if _source is None else _source()
