"""Claims from large tables, beside claims from a small one."""

from typing import Final

from tests.benchmarks.race import Contestant, Row
from tests.benchmarks.rows.scale import Scale
from tests.benchmarks.table import Line, at_most, value_of

_SMALL: Final = "ten-thousand"
# After a hundred jobs in a row a store goes on from where it was: claims of one are to be looks at everything.
_CLAIMS: Final = {1: 75, 64: 100}
"""How many claims are made of so many jobs."""
_BOUNDS: Final = {"million": 2.5, "rare-types": 5, "due-later": 2, "own-priorities": None}


def claims(scale: Scale) -> Row:
    """The median claim from each scene, one job at a time and 64."""
    # There are too few jobs of the rare types for so many large claims.
    wanted = [
        (scene, limit) for limit in _CLAIMS for scene in (_SMALL, *_BOUNDS) if (scene, limit) != ("rare-types", 64)
    ]
    return Row(
        name="claims",
        contestants=[_claim(scene, limit) for scene, limit in wanted],
        lines=[_line(scene, limit, scale.million) for scene, limit in wanted if scene != _SMALL],
        stages={scene: {"million": scale.million} for scene in (_SMALL, *_BOUNDS)},
    )


def _claim(scene: str, limit: int) -> Contestant:
    options = {"batch": limit, "jobs": _CLAIMS[limit], "rare": scene == "rare-types"}
    return Contestant(_name(scene, limit), "contestants.ours", "claim", options, stage=scene)


def _line(scene: str, limit: int, million: int) -> Line:
    said = {
        "million": f"{million:,} pending, as many finished",
        "rare-types": f"100 rare types behind {million:,}",
        "due-later": f"{million // 2:,} due later",
        "own-priorities": f"{million // 20:,} later, each of a priority",
    }[scene]
    bound = _BOUNDS[scene]
    return Line(
        work=f"claim of {limit}: {said}",
        ours=_name(scene, limit),
        reference=_name(_SMALL, limit),
        measure=value_of("p50"),
        unit="ms",
        target=None if bound is None else at_most(bound),
    )


def _name(scene: str, limit: int) -> str:
    return f"{scene}, {limit}"
