"""Every statement. `{schema}` in them is the schema's name, put in once per store; values are `%(name)s`.

All moments are the database's: `coalesce(%(now)s, now())`, where only tests give a *now*. Rows are locked in one order
everywhere, jobs by id before bundles by id, each time by a `select ... order by id for ...` ahead of the change;
without it, processes that finish members of the same bundles deadlock.
"""
