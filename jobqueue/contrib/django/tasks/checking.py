"""What can be wrong with the setting TASKS."""

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from django.apps import apps
from django.core.checks import CheckMessage, Error

from jobqueue.contrib.django.tasks.call import check_queue_name
from jobqueue.contrib.django.tasks.framework import InvalidTask
from jobqueue.contrib.django.tasks.options import Options

_APP: Final = "jobqueue.contrib.django"


def check_installed(alias: str) -> Iterator[CheckMessage]:
    """Find that nobody would register the handlers of tasks."""
    if not apps.is_installed(_APP):
        yield Error(
            f"TASKS[{alias!r}] is a job queue, but {_APP!r} is not installed: no worker would run its tasks.",
            hint=f"Add {_APP!r} to INSTALLED_APPS.",
            id="jobqueue.E101",
        )


def check_queues(alias: str, queues: Iterable[str]) -> Iterator[CheckMessage]:
    """Find names of queues that no job type can have."""
    for name in sorted(queues):
        try:
            check_queue_name(name)
        except InvalidTask as error:
            yield Error(f"TASKS[{alias!r}]['QUEUES']: {error}", id="jobqueue.E102")


class SharesQueues(Protocol):
    """A backend, seen from here."""

    alias: str
    defaults: Options

    @property
    def patterns(self) -> list[str]:
        """What covers its queues."""
        ...


def check_alike(backend: SharesQueues, others: Iterable[SharesQueues]) -> Iterator[CheckMessage]:
    """Find backends that share a queue, whose runs they want treated differently."""
    for other in others:
        shared = sorted(set(backend.patterns) & set(other.patterns))
        if other.alias < backend.alias and shared and other.defaults.of_runs != backend.defaults.of_runs:
            yield Error(
                f"TASKS[{backend.alias!r}] and TASKS[{other.alias!r}] share {', '.join(shared)}, but not the OPTIONS "
                "'timeout' and 'atomic': workers could not tell their tasks apart.",
                hint="Give them different QUEUES.",
                id="jobqueue.E103",
            )
