"""Applies migrations/0007_create_schedules.sql."""

from typing import ClassVar

from django.db import migrations

from jobqueue.contrib.django.operations import ApplyFile


class Migration(migrations.Migration):
    """See the SQL file."""

    atomic = False
    dependencies: ClassVar = [("jobqueue", "0006_keep_unique_keys")]
    operations: ClassVar = [ApplyFile("0007_create_schedules")]
