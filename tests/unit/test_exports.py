"""What the two packages offer, and what importing them does not do."""

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

PACKAGES = ["jobqueue", "jobqueue_pg"]


@pytest.fixture(params=PACKAGES)
def package(request) -> ModuleType:
    return importlib.import_module(request.param)


def test_all_is_sorted(package):
    """`__all__` is in alphabetical order, without duplicates."""
    assert list(package.__all__) == sorted(set(package.__all__))


def test_all_is_importable(package):
    """Every name in `__all__` is there."""
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


def test_all_is_complete(package):
    """Every public name of the package that is no module is in `__all__`."""
    public = {
        name for name, value in vars(package).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public - set(package.__all__) == set()


def test_importing_the_core_is_inert():
    """Importing jobqueue starts no thread and imports no driver."""
    code = """
import sys, threading, jobqueue
assert threading.active_count() == 1, threading.enumerate()
drivers = {"psycopg", "psycopg_pool", "psycopg2", "jobqueue_pg"} & set(sys.modules)
assert not drivers, drivers
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_importing_the_backend_starts_no_thread():
    """Importing jobqueue_pg starts no thread and opens no connection pool."""
    code = "import threading, jobqueue_pg; assert threading.active_count() == 1, threading.enumerate()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
