"""The queue in Django's admin: everything can be looked at, and what is done is done by the service."""

from django.contrib import admin

from jobqueue.contrib.django.admin.bundles import JobBundleAdmin
from jobqueue.contrib.django.admin.jobs import ArchivedJobAdmin, JobAdmin
from jobqueue.contrib.django.admin.pauses import PausedTypeAdmin
from jobqueue.contrib.django.admin.schedules import ScheduleAdmin
from jobqueue.contrib.django.models import ArchivedJob, Job, JobBundle, PausedType, Schedule

__all__ = ["ArchivedJobAdmin", "JobAdmin", "JobBundleAdmin", "PausedTypeAdmin", "ScheduleAdmin"]

admin.site.register(Job, JobAdmin)
admin.site.register(JobBundle, JobBundleAdmin)
admin.site.register(ArchivedJob, ArchivedJobAdmin)
admin.site.register(Schedule, ScheduleAdmin)
admin.site.register(PausedType, PausedTypeAdmin)
