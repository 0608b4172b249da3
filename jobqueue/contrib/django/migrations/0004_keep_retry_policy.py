"""Applies migrations/0004_keep_retry_policy.sql."""

from typing import ClassVar

from django.db import migrations

from jobqueue.contrib.django.operations import ApplyFile


class Migration(migrations.Migration):
    """See the SQL file."""

    atomic = False
    dependencies: ClassVar = [("jobqueue", "0003_let_workers_tell")]
    operations: ClassVar = [ApplyFile("0004_keep_retry_policy")]
