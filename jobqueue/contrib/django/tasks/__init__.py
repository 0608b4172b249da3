"""Tasks of Django as jobs: the backend for the setting TASKS.

From Django 6 on it is one for Django's own Tasks framework, before that for the package django-tasks.
"""

from jobqueue.contrib.django.tasks.backend import JobQueueBackend
from jobqueue.contrib.django.tasks.describing import job_desc
from jobqueue.contrib.django.tasks.registering import register_tasks
from jobqueue.contrib.django.tasks.task import JobQueueTask

__all__ = ["JobQueueBackend", "JobQueueTask", "job_desc", "register_tasks"]
