"""Applies migrations/0003_let_workers_tell.sql."""

from typing import ClassVar

from django.db import migrations

from jobqueue.contrib.django.operations import ApplyFile


class Migration(migrations.Migration):
    """See the SQL file."""

    atomic = False
    dependencies: ClassVar = [("jobqueue", "0002_index_claims")]
    operations: ClassVar = [ApplyFile("0003_let_workers_tell")]
