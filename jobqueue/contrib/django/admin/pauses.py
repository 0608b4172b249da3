"""The pages of paused types."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AdminSplitDateTime, AdminTextInputWidget
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from jobqueue.context import current_service
from jobqueue.contrib.django.admin.acts import shown_again
from jobqueue.contrib.django.admin.deleting import DeletingAdmin
from jobqueue.contrib.django.models import PausedType
from jobqueue.errors import InvalidJobError, JobQueueError
from jobqueue.limits import check_type_or_pattern

# Django's own class takes no parameters.
if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[PausedType]
else:
    _ModelForm = forms.ModelForm


_ASKED: Final = ("type", "until", "reason")


class PauseForm(_ModelForm):
    """What is to be paused, until when, and why."""

    type = forms.CharField(max_length=100, help_text="A type, or a pattern such as report:*")
    until = forms.SplitDateTimeField(
        required=False, widget=AdminSplitDateTime, help_text="When it ends by itself; empty: when somebody resumes it"
    )
    reason = forms.CharField(required=False, max_length=1000, widget=AdminTextInputWidget)

    class Meta:
        """The others are the service's."""

        model = PausedType
        fields = _ASKED

    def clean_type(self) -> str:
        """Refuse what is neither a type nor a pattern."""
        try:
            return check_type_or_pattern("type", self.cleaned_data["type"])
        except InvalidJobError as error:
            raise forms.ValidationError(str(error)) from error

    def clean_until(self) -> datetime | None:
        """Refuse a moment that has passed."""
        until: datetime | None = self.cleaned_data["until"]
        if until is not None and until <= timezone.now():
            raise forms.ValidationError("This moment has passed.")
        return until


class PausedTypeAdmin(DeletingAdmin):
    """What is paused; to delete a row is to resume the type, and to add one is to pause it."""

    list_display = ("type", "until", "reason", "paused_at", "by_failure")
    ordering = ("type",)
    form = PauseForm

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Who may pause."""
        return self.may(request, "add")

    def get_fields(self, request: HttpRequest, obj: PausedType | None = None) -> Any:  # noqa: ARG002 - as Django calls it
        """Ask for what can be said, and show all of it."""
        return _ASKED if obj is None else (*_ASKED, "paused_at", "by_failure")

    @admin.display(description="set by a failure", boolean=True)
    def by_failure(self, row: PausedType) -> bool:
        """Whether it was not a person who has paused it."""
        return row.back_off is not None

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Ask what is to be paused, and pause it."""
        try:
            return super().add_view(request, form_url, extra_context)
        except JobQueueError as error:
            return shown_again(request, "paused", error)

    def save_model(self, request: HttpRequest, obj: PausedType, form: Any, change: bool) -> None:  # noqa: ARG002, FBT001 - as Django calls it
        """Pause."""
        current_service().pause(obj.type, obj.until, obj.reason or None)

    def delete_one(self, id: str) -> object:
        """Resume."""
        return current_service().resume(id)
