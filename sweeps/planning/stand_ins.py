"""Configurations that results will decide: what stands in for them while nothing has run."""

from __future__ import annotations

from sweeps.search.base import Search, differing, identity
from sweeps.search.proposals import Proposal
from sweeps.search.space import drawn_from
from sweeps.study.config import StudyConfig
from ubt.common.hashing import numpy_generator
from ubt.config.dotted_paths import JsonObject

_DRAWS = 20
"""Draws for each stand-in, before the space is taken to have no more."""


def all_proposals(study: StudyConfig) -> list[Proposal]:
    """Return every configuration of a study: those that are known, and stand-ins for those that results decide."""
    return [*study.proposals(), *stand_ins(study.search, study.base)]


def stand_ins(search: Search, base: JsonObject) -> list[Proposal]:
    """Return configurations drawn at random from a search's space, as many as results decide: the same each time.

    There are fewer if the space has no more. A search that learns draws its configurations closer together, so that
    they share more stages than these.
    """
    rng, known = numpy_generator(0, "stand-ins"), search.expand(base) if search.chosen_later else []
    distinct = {identity(proposal.changes): proposal for proposal in known}
    for _ in range(_DRAWS * search.chosen_later):
        if len(distinct) == len(known) + search.chosen_later:
            break
        drawn = {path: drawn_from(path, dimension, rng) for path, dimension in search.space.items()}
        changed = differing(search.active(drawn, base), base)
        distinct.setdefault(identity(changed), Proposal(len(distinct), changed))
    return list(distinct.values())[len(known) :]
