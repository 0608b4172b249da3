"""What ``jobqueue worker module:name`` means: a module that registers handlers, and perhaps what is to work in it."""

import difflib
import importlib
import sys
from pathlib import Path

import jobqueue_pg
from jobqueue.cli.plan import NOT_DONE, PlanError, described, in_one_line, is_service
from jobqueue.context import default_service
from jobqueue.errors import NotInitializedError, UnavailableError
from jobqueue.service import Service
from jobqueue.worker import WorkerPool


def load(target: str, dsn: str | None, schema: str) -> WorkerPool | Service:
    """Import the module of *target*, and return the pool or service that it names, or else the service it has set up.

    When it has set up none as the default one, connect to *dsn* (None: as libpq's variables say) and *schema*.

    Raises PlanError.
    """
    module_name, colon, name = target.partition(":")
    if not module_name or (colon and not name):
        raise PlanError(
            f"{target!r} is no module, nor a module and a name in it, such as 'shop.jobs' or 'shop.jobs:pool'"
        )
    module = _imported(module_name)
    if name:
        return _made(_found(module, module_name, name), target)
    try:
        return default_service()
    except NotInitializedError:
        return connected(dsn, schema)


def connected(dsn: str | None, schema: str) -> Service:
    """Open a service for workers. Raises PlanError for a *dsn* that is none, and JobQueueError as ``connect``."""
    try:
        return jobqueue_pg.init_job_queue(dsn or "", schema=schema)
    except UnavailableError as error:
        raise PlanError(f"{in_one_line(error)}{hint_without(dsn)}") from error
    except ValueError as error:
        raise PlanError(in_one_line(error)) from error


def hint_without(dsn: str | None) -> str:
    """Return how a database is named, where *dsn* does not do it."""
    return "" if dsn else " (--dsn, JOBQUEUE_DSN or libpq's PGHOST, PGDATABASE... name the database)"


def _imported(name: str) -> object:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise PlanError(f"there is no module {error.name!r} in {here}, nor elsewhere on the path") from error
        raise PlanError(f"module {name!r} cannot be imported: {described(error)}") from error
    except NOT_DONE as error:
        raise PlanError(f"module {name!r} cannot be imported: {described(error)}") from error


def _found(module: object, module_name: str, name: str) -> object:
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            likely = difflib.get_close_matches(part, dir(found), 1)
            hint = f": did you mean {likely[0]!r}?" if likely else ""
            raise PlanError(f"module {module_name!r} has no {name!r}{hint}")
        found = getattr(found, part)
    return found


def _made(found: object, target: str) -> WorkerPool | Service:
    made = found() if callable(found) and not isinstance(found, WorkerPool) and not is_service(found) else found
    if isinstance(made, WorkerPool) or is_service(made):
        return made
    what = "returns" if made is not found else "is"
    raise PlanError(f"{target!r} {what} {made!r:.60}, which is neither a worker pool nor a service")
