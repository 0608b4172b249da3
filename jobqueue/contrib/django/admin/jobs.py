"""The pages of jobs."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet, Value
from django.db.models.functions import Lower, Sign, StrIndex
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from jobqueue.context import current_service
from jobqueue.contrib.django.admin import showing
from jobqueue.contrib.django.admin.acts import OF_JOBS, STOPPED
from jobqueue.contrib.django.admin.deleting import DeletingAdmin
from jobqueue.contrib.django.admin.filters import AgeFilter, OriginFilter, StateFilter, TypeFilter
from jobqueue.contrib.django.admin.looking import LookingAdmin
from jobqueue.contrib.django.admin.texts import COLUMNS, attempts_of, error_data_of, texts_of, traceback_of
from jobqueue.contrib.django.models import Job
from jobqueue.models import State


class _ShowingJobs(LookingAdmin):
    """What is shown of jobs, in the queue or not."""

    states: Sequence[State] = tuple(State)

    list_display = (
        "type",
        "shown_state",
        "shown_error",
        "origin",
        "priority",
        "created_at",
        "started_at",
        "stopped_at",
    )
    list_filter = (StateFilter, TypeFilter, OriginFilter, AgeFilter)
    ordering = ("-created_at", "-id")
    search_fields = ("id", "error_msg")
    search_help_text = "an id, or a part of an error message"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Read no JSON: it may be large, and one value that Python cannot hold must not spoil a page."""
        return super().get_queryset(request).defer(*COLUMNS)

    def get_search_results(
        self,
        request: HttpRequest,  # noqa: ARG002 - as Django calls it
        queryset: QuerySet[Any],
        search_term: str,
    ) -> tuple[QuerySet[Any], bool]:
        """Find an id, or what is a part of an error message, as it is."""
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            return queryset.filter(id=UUID(term)), False
        except ValueError:
            # As the service looks for it: such a condition is expected to hold for few, so that an index of failed jobs
            # is used, and not the whole list looked through.
            place = Sign(StrIndex(Lower("error_msg"), Lower(Value(term.replace("\0", "")))))
            return queryset.filter(error_msg__isnull=False).annotate(_found=place).filter(_found=1), False

    @admin.display(description="state")
    def shown_state(self, row: Any) -> SafeString:
        """Show it."""
        return showing.state_badge(row.state)

    @admin.display(description="error")
    def shown_error(self, row: Any) -> SafeString | str:
        """Show how it begins."""
        line = showing.first_line(row.error_msg)
        return format_html('<div class="jobqueue-error">{}</div>', line) if line else ""

    @admin.display(description="error")
    def whole_error(self, row: Any) -> SafeString | str:
        """Show all of it."""
        return showing.block(row.error_msg)

    @admin.display(description="payload")
    def shown_payload(self, row: Any) -> SafeString | str:
        """Show it as JSON."""
        return showing.pretty(texts_of(row)["payload"])

    @admin.display(description="result")
    def shown_result(self, row: Any) -> SafeString | str:
        """Show it as JSON."""
        return showing.pretty(texts_of(row)["result"])

    @admin.display(description="progress")
    def shown_progress(self, row: Any) -> SafeString | str:
        """Show it as JSON."""
        return showing.pretty(texts_of(row)["progress"])

    @admin.display(description="error data")
    def shown_error_data(self, row: Any) -> SafeString | str:
        """Show it as JSON, without the traceback, which is shown as text."""
        return showing.pretty(error_data_of(row))

    @admin.display(description="traceback")
    def shown_traceback(self, row: Any) -> SafeString | str:
        """Show that of the last run."""
        return showing.block(traceback_of(row))

    @admin.display(description="retries")
    def shown_retries(self, row: Any) -> str:
        """Show how many were made, and how many there are."""
        return f"{row.current_retry_count} of {row.max_retry_count}"

    @admin.display(description="failed runs")
    def shown_attempts(self, row: Any) -> SafeString | str:
        """Show them in a table."""
        return showing.attempts_table(attempts_of(row))


_COLUMNS: Final = (
    ("", ("id", "type", "shown_state", "origin", "priority", "shown_progress")),
    ("Payload", ("shown_payload", "shown_result")),
    ("Error", ("whole_error", "shown_traceback", "shown_error_data")),
    ("Runs", ("run_count", "shown_retries", "rescue_count", "claimed_by", "shown_attempts")),
)
_TIMES: Final = ("created_at", "start_at", "started_at", "stopped_at", "cancelled_at", "updated_at")


def _fieldsets(*more: str, times: tuple[str, ...]) -> Any:
    first, *rest = _COLUMNS
    sets = [(None, (*first[1], *more)), *rest, ("Times", times)]
    return tuple((name, {"fields": fields}) for name, fields in sets)


class ArchivedJobAdmin(_ShowingJobs):
    """What retention has moved away, and nobody deletes here."""

    states = tuple(state for state in State if state in STOPPED)
    fieldsets = _fieldsets(times=(*_TIMES, "archived_at"))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - as Django calls it
        """Nobody may: the service does not."""
        return False


class JobAdmin(_ShowingJobs, DeletingAdmin):
    """What is in the queue, and what can be done with it."""

    fieldsets = _fieldsets("shown_bundle", "unique_key", times=(*_TIMES, "worker_alive_at"))
    actions = tuple(act.action("jobs") for act in OF_JOBS)
    change_form_template = "admin/jobqueue/job/change_form.html"

    @admin.display(description="bundle")
    def shown_bundle(self, row: Job) -> SafeString | str:
        """Link to the bundle that the job is of, or has been added by."""
        bundle = row.bundle or row.completes_bundle
        if bundle is None:
            return showing.NOTHING
        link = showing.link_to("jobbundle", bundle.pk, str(bundle))
        progress = showing.progress_bar(bundle.num_jobs_stopped, bundle.num_jobs)
        return format_html("{} {}", link, progress)

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """Who may replay."""
        return self.may(request, "replay")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Who may cancel."""
        return self.may(request, "cancel")

    def has_reset_permission(self, request: HttpRequest) -> bool:
        """Who may reset."""
        return self.may(request, "reset")

    def delete_one(self, id: UUID) -> bool:
        """Delete a job."""
        current_service().delete_job(id)
        return True

    def delete_ids(self, ids: Sequence[UUID]) -> int:
        """Delete several."""
        return current_service().delete_jobs(ids)

    def get_urls(self) -> list[Any]:
        """Add where the buttons of a job's page lead to."""
        view = self.admin_site.admin_view(self.act_view)
        return [path("<uuid:id>/act/<slug:name>/", view, name="jobqueue_job_act"), *super().get_urls()]

    def act_view(self, request: HttpRequest, id: UUID, name: str) -> HttpResponse:
        """Do with a job what a button says, and show it again; who comes by a link, or from the login, is shown it."""
        page = HttpResponseRedirect(reverse("admin:jobqueue_job_change", args=[id], current_app=self.admin_site.name))
        if request.method != "POST":
            return page
        act = _ACTS.get(name)
        if act is None:
            raise Http404(f"there is nothing called {name!r} to be done with a job")
        row = self.get_object(request, str(id))
        if row is None:
            raise Http404(f"there is no job {id}")
        if not (self.has_view_permission(request, row) and self.may(request, name)):
            raise PermissionDenied
        if act.run(request, self, [id]):
            self.log_change(request, row, f"{act.done.capitalize()}.")
        return page

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any) -> Any:
        """Show a job, with buttons for what the user may do, and what can be done."""
        state = getattr(options.get("obj"), "state", None)
        acts = [act for act in OF_JOBS if state in act.states and self.may(request, act.name)]
        return super().render_change_form(request, {**context, "acts": acts}, *args, **options)


_ACTS: Final = {act.name: act for act in OF_JOBS}
