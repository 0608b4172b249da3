"""Applies migrations/0002_index_claims.sql."""

from typing import ClassVar

from django.db import migrations

from jobqueue.contrib.django.operations import ApplyFile


class Migration(migrations.Migration):
    """See the SQL file."""

    atomic = False
    dependencies: ClassVar = [("jobqueue", "0001_create_queue")]
    operations: ClassVar = [ApplyFile("0002_index_claims")]
