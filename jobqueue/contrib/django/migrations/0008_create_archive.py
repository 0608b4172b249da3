"""Applies migrations/0008_create_archive.sql."""

from typing import ClassVar

from django.db import migrations

from jobqueue.contrib.django.migrations._models import MODELS
from jobqueue.contrib.django.operations import ApplyFile


class Migration(migrations.Migration):
    """See the SQL file."""

    atomic = False
    dependencies: ClassVar = [("jobqueue", "0007_create_schedules")]
    operations: ClassVar = [ApplyFile("0008_create_archive"), *MODELS]
