"""Who is loading the application: whether that is a server, and when it is done with it.

Both is read off the stack of calls. An application is loaded by a call of its server's, within which its modules are
imported; when that call has returned, all handlers are registered. What is loaded by anybody else, as a shell, a test
or a one-off command, is not served, as far as can be seen.
"""

import inspect
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, Final

logger = logging.getLogger(__name__)

Loaded = Callable[[], bool]
"""Says whether the application has been loaded."""


def serve_when_loaded(serve: Callable[[Loaded], object]) -> None:
    """Have *serve* called, now or later, if this process serves the application that is being loaded.

    Where a server loads it in order to fork, as gunicorn with ``--preload``, it does not: see ``serve_when_forked``.
    """
    if (worker := _gunicorn_worker()) is not None:
        _when_booted(worker, serve)
    elif hasattr(uwsgi := sys.modules.get("uwsgi"), "worker_id"):
        _in_uwsgi(uwsgi, serve)
    elif (frame := _loading_frame()) is not None:
        serve(_has_left(frame))


def serve_when_forked(serve: Callable[[Loaded], object]) -> None:
    """Have *serve* called if this process, which is being forked from one that has loaded the application, serves it.

    That is in workers of gunicorn. What such a worker forks in its turn boots no worker, so nothing is called there.
    """
    if (worker := _gunicorn_worker()) is not None:
        _when_booted(worker, serve)


def _gunicorn_worker() -> Any:
    """Return the worker of gunicorn in which the application is loaded, or as which this process was just forked."""
    for frame in _stack():
        if name := _WORKER_IN.get(_name_of(frame)):
            return frame.f_locals.get(name)
    return None


def _when_booted(worker: Any, serve: Callable[[Loaded], object]) -> None:
    """Put *serve* before the hook ``post_worker_init``: by then, a worker has its own user and signal handlers."""
    after = worker.cfg.post_worker_init

    def post_worker_init(worker: Any) -> None:
        serve(lambda: True)
        after(worker)

    worker.cfg.set("post_worker_init", post_worker_init)


def _in_uwsgi(uwsgi: Any, serve: Callable[[Loaded], object]) -> None:
    """Have *serve* called in this worker of uWSGI (``--lazy-apps``), or in those that its master forks."""
    if not {"enable-threads", "threads"} & set(uwsgi.opt):
        logger.warning(
            "uWSGI runs without threads, so worker threads stand still between requests: start it with --enable-threads"
        )
    if uwsgi.worker_id():
        # Its own code is in C, around an empty __main__ that never ends.
        *_, outermost = (frame for frame in _stack() if _name_of(frame)[0] != "__main__")
        serve(_has_left(outermost))
        return
    # uWSGI forks without Python's knowledge, but tells of it: also in mules, which are no workers.
    before = getattr(uwsgi, "post_fork_hook", None)

    def post_fork_hook() -> None:
        if uwsgi.worker_id():
            serve(lambda: True)
        if before is not None:
            before()

    uwsgi.post_fork_hook = post_fork_hook


def _loading_frame() -> FrameType | None:
    """Return the outermost call that loads the application, if the one that has made it is a server's."""
    inner: FrameType | None = None
    for frame in _stack():
        serves = _SERVERS.get(_name_of(frame))
        if serves is not None:
            return inner if serves(frame) else None
        inner = frame
    return None


def _stack() -> Iterator[FrameType]:
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def _name_of(frame: FrameType) -> tuple[str, str]:
    return str(frame.f_globals.get("__name__")), frame.f_code.co_name


def _has_left(frame: FrameType) -> Loaded:
    """Return a function that says whether this thread has returned from *frame*."""
    thread = threading.get_ident()

    def has_left() -> bool:
        current = sys._current_frames().get(thread)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - documented
        while current is not None:
            if current is frame:
                return False
            current = current.f_back
        return True

    return has_left


def _is_served_by_flask(frame: FrameType) -> bool:
    reload = frame.f_locals["reload"]
    if reload is None:
        reload = frame.f_globals["get_debug_flag"]()
    return not reload or os.environ.get("WERKZEUG_RUN_MAIN") == "true"


def _is_served_by_django(frame: FrameType) -> bool:
    if frame.f_locals.get("subcommand") not in {"runserver", "runserver_plus"}:
        return False
    is_child = "true" in {os.environ.get("RUN_MAIN"), os.environ.get("WERKZEUG_RUN_MAIN")}
    return is_child or "--noreload" in frame.f_locals["self"].argv


def _always(_: FrameType) -> bool:
    return True


_WORKER_IN: Final = {("gunicorn.workers.base", "load_wsgi"): "self", ("gunicorn.arbiter", "spawn_worker"): "worker"}
"""The functions of gunicorn that load an application in a worker, and fork one; with their name for it."""

_SERVERS: Final[Mapping[tuple[str, str], Callable[[FrameType], bool]]] = {
    ("flask.cli", "run_command"): _is_served_by_flask,
    ("django.core.management", "execute"): _is_served_by_django,
    ("waitress.runner", "run"): _always,
    ("cheroot.cli", "main"): _always,
}
"""The functions of servers that load an application in the process that serves it."""
