"""How Django applies the queue's own migrations: its SQL files are the only source of the tables."""

from django.core.management.base import CommandError
from django.db import router
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

import jobqueue_pg
from jobqueue.contrib.django import databases
from jobqueue.contrib.django.configuration import configuration
from jobqueue.errors import JobQueueError


class ApplyFile(Operation):
    """Applies the queue's migrations up to the SQL file *name*, as ``jobqueue migrate`` does, by whose record it goes.

    It works on a connection of its own, so that both can be mixed; and only on the database that JOBQUEUE names.
    """

    reduces_to_sql = True
    reversible = True  # as Django sees it: for what it would say of others, it shows a traceback

    def __init__(self, name: str) -> None:
        self.name = name

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Leave the state of the models, which are unmanaged, to other operations."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,  # noqa: ARG002 - as Django calls it
        to_state: ProjectState,  # noqa: ARG002
    ) -> None:
        """Apply what is pending."""
        alias = schema_editor.connection.alias
        if alias not in databases.aliases() or not router.allow_migrate(alias, app_label):
            return
        schema = configuration().schema
        if schema_editor.collect_sql:
            schema_editor.collected_sql += jobqueue_pg.migration_script(self.name, schema=schema).splitlines()
            return
        try:
            jobqueue_pg.migrate(databases.conninfo_of(schema_editor.connection), schema=schema, to=self.name)
        except JobQueueError as error:
            raise CommandError(str(error)) from error

    def database_backwards(
        self,
        app_label: str,  # noqa: ARG002 - as above
        schema_editor: BaseDatabaseSchemaEditor,  # noqa: ARG002
        from_state: ProjectState,  # noqa: ARG002
        to_state: ProjectState,  # noqa: ARG002
    ) -> None:
        """Refuse."""
        schema = configuration().schema
        raise CommandError(
            "the migrations of the job queue only go forward, and older versions of the package work on newer tables. "
            f'To be rid of the queue, with all jobs: `drop schema "{schema}" cascade`, and then '
            "`python manage.py migrate jobqueue zero --fake`"
        )

    def describe(self) -> str:
        """Say what it does."""
        return f"Apply {self.name}.sql to the queue's schema"

    @property
    def migration_name_fragment(self) -> str:
        """Name a migration that has nothing else."""
        return self.name
