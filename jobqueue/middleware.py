"""What stands between those who add jobs and the rows: middleware, in force in the context that has put it there."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

from jobqueue.models import Job, JobBundle
from jobqueue.service import Service

_in_force: ContextVar[tuple["AddMiddleware", ...]] = ContextVar("jobqueue_add_middleware", default=())


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


@contextmanager
def adding_through(middleware: AddMiddleware, *, outermost: bool) -> Generator[None]:
    """Have all that is added within the block, in this thread (or task), pass through *middleware*.

    It comes before all that is in force already if it is the *outermost*, else after it.
    """
    others = _in_force.get()
    token = _in_force.set((middleware, *others) if outermost else (*others, middleware))
    try:
        yield
    finally:
        _in_force.reset(token)


def add_job_through(service: Service, job: Job, add: Callable[[Job], Job]) -> Job:
    """Pass *job* through all middleware that is in force, and at last to *add*."""

    def pass_on(job: Job, rest: tuple[AddMiddleware, ...]) -> Job:
        if not rest:
            return add(job)
        return rest[0].add_job(service, job, lambda passed: pass_on(passed, rest[1:]))

    return pass_on(job, _in_force.get())


def add_bundle_through(service: Service, bundle: JobBundle, add: Callable[[JobBundle], JobBundle]) -> JobBundle:
    """Pass *bundle* through all middleware that is in force, and at last to *add*."""

    def pass_on(bundle: JobBundle, rest: tuple[AddMiddleware, ...]) -> JobBundle:
        if not rest:
            return add(bundle)
        return rest[0].add_bundle(service, bundle, lambda passed: pass_on(passed, rest[1:]))

    return pass_on(bundle, _in_force.get())
