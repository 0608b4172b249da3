"""Hooks with which gunicorn serves gunicorn_app."""

import os
from typing import Any


def post_fork(server: Any, worker: Any) -> None:
    """Connect in a new worker; gunicorn calls this there."""
    import gunicorn_app  # as the master has imported it

    if os.environ["CONNECT"] == "post_fork":
        gunicorn_app.connect()
