"""What all pages of the queue have in common: nothing is edited, nothing is added, lists are cheap."""

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db import DataError
from django.http import HttpRequest

from jobqueue.contrib.django.admin.paging import BoundedPaginator

# Django's own class takes no parameters.
if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin


class _InOrder(ChangeList):
    """A list in the one order that there is an index of, whatever the address of the page says."""

    def get_ordering(self, request: HttpRequest, queryset: Any) -> list[Any]:  # noqa: ARG002 - as Django calls it
        """Return that."""
        return list(self.model_admin.get_ordering(request))

    def get_queryset(self, request: HttpRequest, *args: Any, **options: Any) -> Any:
        """Find nothing by what no text of PostgreSQL holds."""
        found = super().get_queryset(request, *args, **options)
        given = (text for name, values in request.GET.lists() for text in (name, *values))
        return found.none() if any("\0" in text for text in given) else found

    def get_results(self, request: HttpRequest) -> None:
        """Treat what the database does not take, such as a wrong regular expression, as what Django does not take."""
        try:
            super().get_results(request)
        except DataError as error:
            raise IncorrectLookupParameters(error) from error


class LookingAdmin(_ModelAdmin):
    """Shows rows to those who may view them."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # they would count
    list_max_show_all = 0
    list_per_page = 50
    sortable_by = ()
    empty_value_display = "-"
    actions_on_bottom = True

    def get_changelist(self, request: HttpRequest, **_: Any) -> type[ChangeList]:  # noqa: ARG002 - as Django calls it
        """Have lists in order."""
        return _InOrder

    class Media:
        """One file."""

        css: ClassVar = {"all": ["jobqueue/admin.css"]}

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Find the row of a page; what no text of PostgreSQL holds is in none."""
        return None if "\0" in object_id else super().get_object(request, object_id, from_field)

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - as Django calls it
        """Nobody may: jobs are enqueued by code."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """Nobody may: what can be done is an action."""
        return False

    def may(self, request: HttpRequest, act: str) -> bool:
        """Whether the user has the permission for *act* on this model."""
        user: Any = request.user
        allowed: bool = user.has_perm(f"{self.opts.app_label}.{act}_{self.opts.model_name}")
        return allowed
