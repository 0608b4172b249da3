"""How the queue connects to the database of an alias."""

from contextlib import closing

import psycopg
import pytest
from django.db import connections
from django.test import override_settings
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

import jobqueue
from jobqueue.contrib.django import databases


@pytest.fixture
def alias(project):
    """The settings of the alias, to be changed."""
    settings = connections.settings["default"]
    before = {**settings, "OPTIONS": settings["OPTIONS"]}
    yield settings
    connections.close_all()
    settings.update(before)


def test_parameters(alias):
    """All that libpq knows is passed on, and nothing that is Django's or the driver's."""
    alias.update(NAME="n", HOST="h", PORT=5433, USER="u", PASSWORD="p w", CONN_MAX_AGE=60)
    alias["OPTIONS"] = {
        "sslmode": "require",
        "passfile": "/a b",
        "application_name": "shop",
        "pool": False,
        "server_side_binding": True,
        "prepare_threshold": 5,
        "isolation_level": None,
    }
    assert conninfo_to_dict(databases.conninfo()) == {
        "dbname": "n",
        "host": "h",
        "port": "5433",
        "user": "u",
        "password": "p w",
        "client_encoding": "UTF8",
        "sslmode": "require",
        "passfile": "/a b",
        "application_name": "shop",
    }


def test_service(alias):
    """A service of libpq's may name everything."""
    alias.update(NAME="", HOST="", PORT="", USER="", PASSWORD="", OPTIONS={"service": "shop"})
    assert conninfo_to_dict(databases.conninfo()) == {"service": "shop", "client_encoding": "UTF8"}


def test_assumed_role(alias, project):
    """The role that Django assumes is that of the queue's sessions, too, with other options of the connection."""
    role = f'a "role" of \\ {conninfo_to_dict(project)["dbname"][-8:]}'
    with closing(psycopg.connect(project, autocommit=True)) as session:
        session.execute(sql.SQL("create role {0} superuser").format(sql.Identifier(role)))
        try:
            alias["OPTIONS"] = {"assume_role": role, "options": "-c work_mem=5MB"}
            with psycopg.connect(databases.conninfo()) as connection:
                found = connection.execute("select current_user, current_setting('work_mem')").fetchone()
                assert found == (role, "5MB")
            assert jobqueue.get_status().num_jobs == 0
        finally:
            jobqueue.close()
            connections.close_all()
            session.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


@override_settings(JOBQUEUE={"LISTEN_DATABASE": "again"})
def test_past_a_pooler(project):
    """Another alias may lead past a pooler, to where it can be heard."""
    connections["again"].settings_dict["OPTIONS"] = {"application_name": "listening"}
    try:
        assert conninfo_to_dict(databases.listen_conninfo())["application_name"] == "listening"
        assert "application_name" not in conninfo_to_dict(databases.conninfo())
        assert databases.aliases()[:2] == ["default", "again"]
    finally:
        connections["again"].settings_dict["OPTIONS"] = {}


def test_aliases(project):
    """Aliases of the same database are told from others, of the same server and of other kinds."""
    assert databases.aliases() == ["default", "again"]
