"""Deleting in the admin: Django asks, and the service deletes."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Final

from django.contrib.admin.models import LogEntry
from django.db import router, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from jobqueue.contrib.django.admin.acts import TOO_MANY, count_done, selected_ids, shown_again
from jobqueue.contrib.django.admin.looking import LookingAdmin
from jobqueue.contrib.django.admin.paging import MOST_COUNTED
from jobqueue.contrib.django.configuration import configuration
from jobqueue.errors import JobQueueError

_ACTION: Final = "delete_selected"
"""As Django calls its own action."""


class DeletingAdmin(LookingAdmin):
    """Deletes what is selected by ``delete_one`` or ``delete_ids``."""

    def delete_one(self, id: Any) -> object:
        """Delete one row; False, or LookupError: it is gone."""
        raise NotImplementedError

    def delete_ids(self, ids: Sequence[Any]) -> int:
        """Delete several rows; return how many."""
        return count_done(self.delete_one, ids)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Ask, and delete; what Django has noted of that is undone when the service does not."""
        try:
            with _all_or_nothing():
                return super().delete_view(request, object_id, extra_context)
        except JobQueueError as error:
            return shown_again(request, "deleted", error)

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **options: Any
    ) -> HttpResponse | None:
        """Do what was chosen for a list; where that is to delete, all of it is deleted and noted, or nothing is."""
        deletes = any(_ACTION in values for _, values in request.POST.lists())
        try:
            with _all_or_nothing() if deletes else nullcontext():
                return super().response_action(request, queryset, *args, **options)
        except JobQueueError as error:
            return shown_again(request, "deleted", error)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:  # noqa: ARG002 - as Django calls it
        """Delete the row of a page."""
        count_done(self.delete_one, [obj.pk])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:  # noqa: ARG002
        """Delete what was selected."""
        self.delete_ids(selected_ids(queryset)[:MOST_COUNTED])

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Say what would be deleted, without reading all of it."""
        allowed: set[str] = set() if self.has_delete_permission(request) else {str(self.opts.verbose_name)}
        if isinstance(objs, QuerySet):
            selected: QuerySet[Any] = objs  # pyright: ignore[reportUnknownVariableType]
            number = len(selected_ids(selected))
            if number > MOST_COUNTED:
                return [], {}, allowed, [TOO_MANY]
            names = [str(each) for each in selected[: self.list_per_page]]
            names += [f"and {number - len(names)} more"] if number > len(names) else []
        else:
            rows: Iterable[Any] = objs
            names = [str(each) for each in rows]
            number = len(names)
        return names, {str(self.opts.verbose_name_plural): number}, allowed, []


@contextmanager
def _all_or_nothing() -> Generator[None]:
    """Open the transactions that Django's history and the service's deletions are parts of."""
    with ExitStack() as stack:
        for alias in dict.fromkeys([router.db_for_write(LogEntry), configuration().database]):
            stack.enter_context(transaction.atomic(using=alias))
        yield
