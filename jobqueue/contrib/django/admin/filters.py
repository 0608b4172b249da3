"""What lists can be narrowed down by."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from jobqueue.context import current_service
from jobqueue.errors import JobQueueError
from jobqueue.models import State

_AGES: Final = {
    "hour": ("the last hour", timedelta(hours=1)),
    "day": ("the last 24 hours", timedelta(days=1)),
    "week": ("the last 7 days", timedelta(days=7)),
    "month": ("the last 30 days", timedelta(days=30)),
}


class StateFilter(admin.SimpleListFilter):
    """By state."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:  # noqa: ARG002
        """List the states that there can be."""
        return [(state.value, state.value) for state in model_admin.states]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:  # noqa: ARG002
        """Narrow down."""
        return queryset.filter(state=self.value()) if self.value() in set(State) else queryset


class AgeFilter(admin.SimpleListFilter):
    """By when they were added, which the index of the list is in the order of."""

    title = "time added"
    parameter_name = "added"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:  # noqa: ARG002
        """List the ages."""
        return [(name, text) for name, (text, _) in _AGES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:  # noqa: ARG002
        """Narrow down."""
        value = self.value()
        return queryset.filter(created_at__gte=timezone.now() - _AGES[value][1]) if value in _AGES else queryset


class _TextFilter(admin.SimpleListFilter):
    """By a text that is typed: to list all that there are would read the whole table."""

    template = "admin/jobqueue/text_filter.html"
    placeholder = ""
    suggestions: Sequence[str] = ()

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        others = request.GET.copy()
        for name in (self.parameter_name, "p", "e"):
            others.pop(str(name), None)
        self.others = [(name, value) for name, values in others.lists() for value in values]

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:  # noqa: ARG002
        """Have the filter shown."""
        return [("", "")]

    def choices(self, changelist: Any) -> Any:
        """Give what the template needs to take the text away again."""
        yield {"query_string": changelist.get_query_string(remove=[self.parameter_name])}


class OriginFilter(_TextFilter):
    """By origin."""

    title = "origin"
    parameter_name = "origin"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:  # noqa: ARG002
        """Narrow down."""
        return queryset.filter(origin=self.value()) if self.value() else queryset


class TypeFilter(_TextFilter):
    """By type, or by a pattern such as ``report:*``."""

    title = "type"
    parameter_name = "type"
    placeholder = "report, or report:*"

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        self.suggestions = _types()

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:  # noqa: ARG002
        """Narrow down."""
        value = self.value()
        if not value:
            return queryset
        return queryset.filter(Q(type__startswith=value[:-1]) if value.endswith("*") else Q(type=value))


def _types() -> list[str]:
    """List types that there are jobs of, which is had at once; without them, types can still be typed."""
    try:
        return sorted(current_service().count_jobs().by_type_and_state)
    except JobQueueError:
        return []
