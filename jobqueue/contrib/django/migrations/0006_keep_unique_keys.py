"""Applies migrations/0006_keep_unique_keys.sql."""

from typing import ClassVar

from django.db import migrations

from jobqueue.contrib.django.operations import ApplyFile


class Migration(migrations.Migration):
    """See the SQL file."""

    atomic = False
    dependencies: ClassVar = [("jobqueue", "0005_pause_types")]
    operations: ClassVar = [ApplyFile("0006_keep_unique_keys")]
