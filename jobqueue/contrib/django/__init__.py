"""The job queue in a Django project: ``"jobqueue.contrib.django"`` in INSTALLED_APPS, ``JOBQUEUE`` in its settings."""
