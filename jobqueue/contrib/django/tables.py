"""What the queue's tables are called in the schema that JOBQUEUE names."""

from functools import cache

from django.core.exceptions import ImproperlyConfigured

from jobqueue.contrib.django.configuration import configuration


@cache
def table(name: str) -> str:
    """Name a table of the queue with its schema, as models take it: quoted already.

    The migrations, which may be imported while a test overrides JOBQUEUE, name it as the models do.
    """
    try:
        schema = configuration().schema
    except ImproperlyConfigured:  # of which the checks tell
        schema = "worker"
    quoted = schema.replace('"', '""').replace("%", "%%")
    return f'"{quoted}"."{name}"'
