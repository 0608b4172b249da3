"""The pages of schedules."""

from typing import Any

from django.contrib import admin
from django.db.models import TextField
from django.db.models.functions import Cast
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from jobqueue.context import current_service
from jobqueue.contrib.django.admin import showing
from jobqueue.contrib.django.admin.acts import OF_SCHEDULES
from jobqueue.contrib.django.admin.deleting import DeletingAdmin

_TICKS_SHOWN = 50


class ScheduleAdmin(DeletingAdmin):
    """When schedules tick, and what has become of it."""

    list_display = ("name", "type", "shown_when", "next_tick_at", "paused_at")
    ordering = ("name",)
    search_fields = ("name", "type")
    actions = tuple(act.action("schedules") for act in OF_SCHEDULES)
    fields = (
        *("name", "type", "shown_when", "next_tick_at", "paused_at", "start_at", "missed", "overlap"),
        *("shown_payload", "priority", "max_retry_count", "origin", "created_at", "updated_at", "shown_ticks"),
    )

    def get_queryset(self, request: Any) -> Any:
        """Read no JSON."""
        return super().get_queryset(request).defer("payload", "retry_policy")

    @admin.display(description="when")
    def shown_when(self, row: Any) -> str:
        """Show what it goes by."""
        return f"every {row.every}" if row.cron is None else f"{row.cron} ({row.tz})"

    @admin.display(description="payload")
    def shown_payload(self, row: Any) -> SafeString | str:
        """Show that of its jobs."""
        return showing.pretty(
            row.__class__.objects.filter(pk=row.pk).values_list(Cast("payload", TextField()), flat=True).first()
        )

    @admin.display(description="last ticks")
    def shown_ticks(self, row: Any) -> SafeString | str:
        """Show what has become of them, with their jobs."""
        ticks = row.ticks.order_by("-tick_at")[:_TICKS_SHOWN]
        rows = [
            (
                showing.moment(tick.tick_at),
                "by hand" if tick.by_hand else "",
                showing.link_to("job", tick.job_id) if tick.job_id else f"skipped: {tick.skipped}",
            )
            for tick in ticks
        ]
        if not rows:
            return showing.NOTHING
        return format_html(
            "<table>{}</table>", format_html_join("", "<tr><td>{}</td><td>{}</td><td>{}</td></tr>", rows)
        )

    def has_pause_permission(self, request: HttpRequest) -> bool:
        """Who may pause."""
        return self.may(request, "pause")

    def has_resume_permission(self, request: HttpRequest) -> bool:
        """Who may resume: who may pause."""
        return self.may(request, "pause")

    def has_run_permission(self, request: HttpRequest) -> bool:
        """Who may run one now."""
        return self.may(request, "run")

    def delete_one(self, id: str) -> object:
        """Remove a schedule."""
        return current_service().remove_schedule(id)
