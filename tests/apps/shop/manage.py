"""Commands of the shop."""

import os
import sys
import threading

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    finally:
        if "SHOP_TELLS_THREADS" in os.environ:
            names = sorted(thread.name for thread in threading.enumerate())
            print(f"threads: {[name for name in names if name.startswith('jobqueue-')]}")  # noqa: T201
