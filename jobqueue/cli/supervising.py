"""What commands that run workers have in common, whichever framework they belong to."""

import logging
import sys
from collections.abc import Callable
from functools import partial

from jobqueue.cli.child import Child
from jobqueue.cli.plan import Plan, log_somewhere
from jobqueue.cli.readiness import Probes, showing
from jobqueue.cli.supervisor import Supervisor
from jobqueue.worker.process import end_threads

logger = logging.getLogger(__name__)

_NOWHERE = Probes()


def run_workers(
    plan: Plan,
    *,
    processes: int = 1,
    probes: Probes = _NOWHERE,
    end_more_threads: Callable[[], bool] = lambda: False,
) -> int:
    """Supervise so many worker *processes* that do what *plan* says, until they are to end; return the exit code.

    For commands of frameworks, too: *plan* names a function that sets the application up in each process. It is called
    in the main thread, which has the process's signals meanwhile. What the user has to know is written to the standard
    error; logs go there, too, unless the application has said where they go. ::

        def handle(self, **options):  # of a management command
            plan = Plan(set_up="jobqueue.contrib.django.worker:set_up", arguments={"alias": "default"}, threads=4)
            sys.exit(run_workers(plan, processes=2))

    Worker threads that the application has started here, where a framework has loaded it, are ended first, and what
    they run is released. *end_more_threads* ends those that ``jobqueue.finish_threads()`` would not, and returns
    whether there were any.

    The code is 0 when they have ended as asked, 1 when they could not begin, 3 when jobs had not ended in time: those
    were released, or, where a process had to be killed, are taken up by others when they have been silent for long
    enough.

    Raises OSError: readiness cannot be shown where *probes* says.
    """
    log_somewhere()
    with showing(probes) as readiness:
        children = [Child(plan) for _ in range(processes)]
        supervisor = Supervisor(children, readiness.show, partial(_leave_jobs_to_children, end_more_threads))
        logger.info("supervising %d worker process%s", processes, "" if processes == 1 else "es")
        code = supervisor.run()
    if supervisor.refusal is not None:
        sys.stderr.write(f"Error: {supervisor.refusal}\n")
    return code


def _leave_jobs_to_children(end_more_threads: Callable[[], bool]) -> None:
    had_threads, had_more = end_threads(), end_more_threads()
    if had_threads or had_more:
        logger.warning(
            "the worker threads that the application has started in the supervising process were ended: jobs run in "
            "the worker processes"
        )
