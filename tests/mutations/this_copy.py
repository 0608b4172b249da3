"""A plugin for pytest: makes sure that what is tested is the copy that the tests are in, and nothing installed."""

from pathlib import Path

import pytest

import jobqueue
import jobqueue_pg


def pytest_configure(config: pytest.Config) -> None:
    for package in (jobqueue, jobqueue_pg):
        if not Path(str(package.__file__)).is_relative_to(config.rootpath):
            pytest.exit(f"{package.__file__} would be tested, and not the copy in {config.rootpath}", returncode=9)
