"""The pages of bundles."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import TextField
from django.db.models.functions import Cast
from django.utils.safestring import SafeString

from jobqueue.context import current_service
from jobqueue.contrib.django.admin import showing
from jobqueue.contrib.django.admin.deleting import DeletingAdmin
from jobqueue.contrib.django.admin.filters import OriginFilter, TypeFilter
from jobqueue.models import State


class JobBundleAdmin(DeletingAdmin):
    """How far bundles are."""

    list_display = ("type", "origin", "shown_progress", "created_at", "stopped_at")
    list_filter = (TypeFilter, OriginFilter)
    # By their ids, which this library makes in the order of time: the only index of all bundles.
    ordering = ("-id",)
    search_fields = ("id",)
    search_help_text = "an id"
    fields = (
        *("id", "type", "origin", "shown_progress", "shown_members", "shown_on_stopped", "delete_when_succeeded"),
        *("created_at", "stopped_at", "updated_at"),
    )

    def get_queryset(self, request: Any) -> Any:
        """Read no JSON."""
        return super().get_queryset(request).defer("on_stopped")

    def get_search_results(self, request: Any, queryset: Any, search_term: str) -> Any:  # noqa: ARG002 - as Django calls it
        """Find an id."""
        try:
            return queryset.filter(id=UUID(search_term.strip())) if search_term.strip() else queryset, False
        except ValueError:
            return queryset.none(), False

    @admin.display(description="progress")
    def shown_progress(self, row: Any) -> SafeString:
        """Show how many members have stopped."""
        return showing.progress_bar(row.num_jobs_stopped, row.num_jobs)

    @admin.display(description="members")
    def shown_members(self, row: Any) -> SafeString:
        """Link to them, and to those that have failed."""
        members = showing.link_to_jobs("all members", bundle__id__exact=row.pk)
        failed = showing.link_to_jobs("failed ones", bundle__id__exact=row.pk, state=State.FAILED.value)
        return showing.side_by_side(members, failed)

    @admin.display(description="at its completion")
    def shown_on_stopped(self, row: Any) -> SafeString | str:
        """Show the job that is added then."""
        text = row.__class__.objects.filter(pk=row.pk).values_list(Cast("on_stopped", TextField()), flat=True).first()
        return showing.pretty(text)

    def get_deleted_objects(self, objs: Any, request: Any) -> Any:
        """Say with how many members they would be deleted."""
        names, counts, *rest = super().get_deleted_objects(objs, request)
        if counts:
            counts["jobs"] = sum(each.num_jobs for each in objs)
        return names, counts, *rest

    def delete_one(self, id: UUID) -> object:
        """Delete a bundle with its members."""
        current_service().delete_job_bundle(id)
        return True
