"""The job queue as an extension of Flask: ``JobQueue(app)``, or ``init_app(app)``."""

from jobqueue.contrib.flask.extension import JobQueue

__all__ = ["JobQueue"]
