"""What can be done to what was selected: the service does it, and says with how many it was done."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

import attrs
from django.contrib import admin, messages
from django.contrib.admin.utils import model_ngettext
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from jobqueue.context import current_service
from jobqueue.contrib.django.admin.paging import MOST_COUNTED
from jobqueue.errors import JobQueueError
from jobqueue.models import State
from jobqueue.service import Service


def count_done(act: Callable[[Any], object], ids: Iterable[Any]) -> int:
    """Do *act* with each of *ids*; return with how many it was done. What is not there any more is passed over."""
    done = 0
    for each in ids:
        try:
            done += act(each) is not False
        except LookupError:
            continue
    return done


def shown_again(request: HttpRequest, done: str, error: JobQueueError) -> HttpResponse:
    """Show a page again that was to do something, with why nothing was *done*."""
    messages.error(request, f"Nothing was {done}: {error}")
    return HttpResponseRedirect(request.get_full_path())


@attrs.frozen(kw_only=True)
class Act:
    """Something that users may do, if they have the permission of its name."""

    name: str
    label: str
    done: str
    """How it is called when it was done."""
    why_not: str
    """Why it is not done with some."""
    do: Callable[[Service, Sequence[Any]], int]
    states: Collection[State] = frozenset(State)
    """Those of the jobs that it is offered for."""

    def run(self, request: HttpRequest, model_admin: Any, ids: Sequence[Any]) -> int:
        """Do it with rows of *model_admin*, by their *ids*; tell the user, and return, with how many it was done."""
        try:
            done = self.do(current_service(), ids)
        except JobQueueError as error:
            messages.error(request, f"Not all were {self.done}: {error}")
            return 0
        missing = len(ids) - done
        if done:
            messages.success(request, f"{_these(model_admin, done)} {self.done}.")
        if missing:
            messages.warning(request, f"{_these(model_admin, missing)} not {self.done}: {self.why_not}.")
        return done

    def action(self, plural: str) -> Callable[[Any, HttpRequest, QuerySet[Any]], None]:
        """Return it as an action of a list of *plural*."""

        @admin.action(permissions=[self.name], description=f"{self.label} selected {plural}")
        def act(model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> None:
            ids = selected_ids(queryset)
            if len(ids) > MOST_COUNTED:
                messages.error(request, f"Nothing was {self.done}: {TOO_MANY}.")
            else:
                self.run(request, model_admin, ids)

        act.__name__ = self.name
        return act


def _these(model_admin: Any, number: int) -> str:
    return f"{number:,} {model_ngettext(model_admin.opts, number)} {'was' if number == 1 else 'were'}"


TOO_MANY: Final = (
    f"more than {MOST_COUNTED:,} are selected; narrow the list down, or use the methods of the service for that"
)


def selected_ids(queryset: QuerySet[Any]) -> list[Any]:
    """Return what is selected, or one more than may be."""
    return list(queryset.values_list("pk", flat=True)[: MOST_COUNTED + 1])


STOPPED: Final = frozenset({State.CANCELLED, State.FAILED, State.SUCCEEDED})
OF_JOBS: Final = (
    Act(
        name="replay",
        label="Replay",
        done="replayed",
        why_not="only failed jobs are",
        do=lambda service, ids: service.replay_jobs(ids),
        states=frozenset({State.FAILED}),
    ),
    Act(
        name="cancel",
        label="Cancel",
        done="cancelled",
        why_not="what has stopped or is gone cannot be",
        do=lambda service, ids: count_done(service.cancel_job, ids),
        states=frozenset(State) - STOPPED,
    ),
    Act(
        name="reset",
        label="Reset",
        done="reset",
        why_not="what is gone cannot be",
        do=lambda service, ids: service.reset_jobs(ids),
    ),
)
OF_SCHEDULES: Final = (
    Act(
        name="pause",
        label="Pause",
        done="paused",
        why_not="what is gone cannot be",
        do=lambda service, ids: count_done(service.pause_schedule, ids),
    ),
    Act(
        name="resume",
        label="Resume",
        done="resumed",
        why_not="what is gone cannot be",
        do=lambda service, ids: count_done(service.resume_schedule, ids),
    ),
    Act(
        name="run",
        label="Run",
        done="run",
        why_not="what is gone cannot be",
        do=lambda service, ids: count_done(service.run_schedule_now, ids),
    ),
)
