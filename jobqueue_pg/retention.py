"""How a retention is spelt for the statements that go by it."""

import json
from datetime import timedelta

from jobqueue.retention import Retention


def rules_json(retention: Retention) -> str:
    """Spell how long jobs are kept, as RULES reads it."""
    return json.dumps(
        [
            {
                "place": place,
                "name": rule.name,
                "is_prefix": rule.is_prefix,
                "succeeded": _seconds(rule.succeeded),
                "failed": _seconds(rule.failed),
                "cancelled": _seconds(rule.cancelled),
            }
            for place, rule in enumerate(retention.rules)
        ]
    )


def _seconds(age: timedelta | None) -> float | None:
    return None if age is None else age.total_seconds()
