"""A WSGI application: requests enqueue, and threads of the same processes do the jobs.

In the environment, CONNINFO says where the queue is, and CONNECT in which process the application connects to it:
``post_fork`` and ``first request`` in each worker, ``preload`` in the master, from which workers are forked.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jobqueue
import jobqueue_pg

_connecting = threading.Lock()
_is_connected = False


@jobqueue.handler("pid")
def pid(seconds: float) -> int:
    threading.Event().wait(seconds)
    return os.getpid()


def connect() -> None:
    """Connect, and start threads, once in a process."""
    global _is_connected  # noqa: PLW0603 - as in any small application
    with _connecting:
        if not _is_connected:
            jobqueue_pg.init_job_queue(os.environ["CONNINFO"])
            jobqueue.start_threads(1)
            _is_connected = True


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Enqueue a job that takes as many seconds as the path says."""
    if os.environ["CONNECT"] == "first request":
        connect()
    try:
        job = jobqueue.enqueue("pid", float(environ["PATH_INFO"].strip("/")))
        answer = {"pid": os.getpid(), "job": str(job.id)}
    except jobqueue.JobQueueError as error:
        answer = {"pid": os.getpid(), "error": type(error).__name__, "message": str(error)}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


if os.environ["CONNECT"] == "preload":
    connect()
