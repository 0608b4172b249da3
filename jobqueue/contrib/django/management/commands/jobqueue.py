"""``manage.py jobqueue``."""

import argparse
import sys
from contextlib import redirect_stdout
from typing import Any, TextIO, cast

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser


class Command(BaseCommand):
    """The commands of the job queue; what comes after its name is for them."""

    help = "Work for the job queue of this project, look at it, and act on it."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Leave ``--help`` to the commands."""
        return super().create_parser(prog_name, subcommand, **{**kwargs, "add_help": False})

    def add_arguments(self, parser: CommandParser) -> None:
        """Take whatever comes."""
        parser.add_argument("-h", "--help", action="store_true", dest="wants_help", help="say which commands there are")
        parser.add_argument("arguments", nargs=argparse.REMAINDER, help="a command, and its options")

    def handle(self, *_: Any, arguments: list[str], wants_help: bool, **__: Any) -> None:
        """Run what is typed.

        Raises:
            CommandError: it cannot be done, for a reason that it names.
        """
        try:
            import click  # noqa: PLC0415 - it may be missing

            from jobqueue.contrib.django.commands import commands  # noqa: PLC0415 - as above
        except ModuleNotFoundError as error:
            raise CommandError(f"this command needs {error.name}: pip install 'jobqueue[django]'") from error
        try:
            with redirect_stdout(cast("TextIO", self.stdout._out)):  # noqa: SLF001
                code = commands().main(
                    ["--help"] if wants_help else arguments, prog_name="manage.py jobqueue", standalone_mode=False
                )
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        except click.ClickException as error:
            raise CommandError(error.format_message(), returncode=error.exit_code) from error
        except click.Abort:
            raise CommandError("aborted") from None
        if code:
            sys.exit(code)
