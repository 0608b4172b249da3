"""Applies migrations/0001_create_queue.sql."""

from typing import ClassVar

from django.db import migrations

from jobqueue.contrib.django.operations import ApplyFile


class Migration(migrations.Migration):
    """See the SQL file."""

    initial = True
    atomic = False
    operations: ClassVar = [ApplyFile("0001_create_queue")]
