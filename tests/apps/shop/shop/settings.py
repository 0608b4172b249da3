"""The settings of the shop; SHOP_DSN in the environment names its database, SHOP_JOBQUEUE is JSON for JOBQUEUE.

SHOP_DRIVER may be psycopg2.
"""

import importlib
import json
import os
import sys
from datetime import timedelta

from psycopg.conninfo import conninfo_to_dict

if os.environ.get("SHOP_DRIVER") == "psycopg2":
    # Which Django takes where there is no other.
    _driver = sys.modules["psycopg"]
    sys.modules["psycopg"] = None  # type: ignore[assignment]
    importlib.import_module("django.db.backends.postgresql.base")
    sys.modules["psycopg"] = _driver

_dsn = conninfo_to_dict(os.environ["SHOP_DSN"])

SECRET_KEY = "only tests know it"
DEBUG = "SHOP_DEBUG" in os.environ
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.staticfiles",
    "jobqueue.contrib.django",
    "orders",
]
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": os.environ.get("SHOP_ENGINE", "django.db.backends.postgresql"),
        "NAME": _dsn.pop("dbname"),
        "USER": _dsn.pop("user", ""),
        "PASSWORD": _dsn.pop("password", ""),
        "HOST": _dsn.pop("host", ""),
        "PORT": str(_dsn.pop("port", "")),
        "OPTIONS": _dsn,
        "ATOMIC_REQUESTS": True,
    }
}
JOBQUEUE = {
    "THREADS": 2,
    # Whoever was killed is known to be dead within two seconds.
    "HEARTBEAT_INTERVAL": timedelta(seconds=0.5),
    "DEAD_FOR": timedelta(seconds=1.5),
    "POLL_INTERVAL": timedelta(seconds=1),
    **json.loads(os.environ.get("SHOP_JOBQUEUE", "{}")),
}
