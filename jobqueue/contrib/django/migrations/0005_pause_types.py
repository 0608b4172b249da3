"""Applies migrations/0005_pause_types.sql."""

from typing import ClassVar

from django.db import migrations

from jobqueue.contrib.django.operations import ApplyFile


class Migration(migrations.Migration):
    """See the SQL file."""

    atomic = False
    dependencies: ClassVar = [("jobqueue", "0004_keep_retry_policy")]
    operations: ClassVar = [ApplyFile("0005_pause_types")]
