"""Settings with which gunicorn serves gunicorn_app: imported once by the master, and forked into two workers."""

import os
from pathlib import Path
from typing import Any

preload_app = True
workers = 2
bind = "127.0.0.1:0"
graceful_timeout = 20
wsgi_app = "gunicorn_app:app"
chdir = str(Path(__file__).resolve().parent)


def post_fork(server: Any, worker: Any) -> None:
    """Connect in a new worker; gunicorn calls this there."""
    import gunicorn_app  # as the master has imported it

    if os.environ["CONNECT"] == "post_fork":
        gunicorn_app.connect()
