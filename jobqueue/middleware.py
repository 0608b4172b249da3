"""What stands between those who add jobs and the rows: middleware, in force in the context that has put it there."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import attrs

from jobqueue.models import Job, JobBundle
from jobqueue.service import Service

_in_force: ContextVar[tuple["_Layer", ...]] = ContextVar("jobqueue_add_middleware", default=())


class AddMiddleware:
    """Stands between a service and its rows when something is added; this one lets everything through.

    What reaches it is complete: checked, and with an origin. It adds by calling *add*, or does something else, and
    returns what the caller is to be given.
    """

    def add_job(self, service: Service, job: Job, add: Callable[[Job], Job]) -> Job:  # noqa: ARG002 - for children
        """Add *job*, or do something else."""
        return add(job)

    def add_bundle(
        self,
        service: Service,  # noqa: ARG002 - for children
        bundle: JobBundle,
        add: Callable[[JobBundle], JobBundle],
    ) -> JobBundle:
        """Add *bundle*, or do something else; its members do not pass through ``add_job``."""
        return add(bundle)


@attrs.define(eq=False)
class _Layer:
    """Middleware within its block. A context that was copied there may outlive that, as a thread's does."""

    middleware: AddMiddleware
    outermost: bool
    is_over: bool = False


@contextmanager
def adding_through(middleware: AddMiddleware, *, outermost: bool) -> Generator[None]:
    """Have all that is added within the block pass through *middleware*: in this thread (or task), and those it starts.

    It comes before what is in force already; but what is *outermost* always comes before what is not.
    """
    layer = _Layer(middleware, outermost)
    token = _in_force.set(tuple(sorted((layer, *_in_force.get()), key=lambda each: not each.outermost)))
    try:
        yield
    finally:
        layer.is_over = True
        _in_force.reset(token)


def add_job_through(service: Service, job: Job, add: Callable[[Job], Job]) -> Job:
    """Pass *job* through all middleware that is in force, and at last to *add*."""
    in_force = _middleware_in_force()
    if not in_force:
        return add(job)

    def pass_on(job: Job, rest: Sequence[AddMiddleware]) -> Job:
        if not rest:
            return add(job)
        return rest[0].add_job(service, job, lambda passed: pass_on(passed, rest[1:]))

    return pass_on(job, in_force)


def add_bundle_through(service: Service, bundle: JobBundle, add: Callable[[JobBundle], JobBundle]) -> JobBundle:
    """Pass *bundle* through all middleware that is in force, and at last to *add*."""

    def pass_on(bundle: JobBundle, rest: Sequence[AddMiddleware]) -> JobBundle:
        if not rest:
            return add(bundle)
        return rest[0].add_bundle(service, bundle, lambda passed: pass_on(passed, rest[1:]))

    return pass_on(bundle, _middleware_in_force())


def _middleware_in_force() -> Sequence[AddMiddleware]:
    return [layer.middleware for layer in _in_force.get() if not layer.is_over]
