"""Which configurations a study tries: designs that know them beforehand, and Optuna's adaptive search.

A new design is a class in a file here and a name in `DESIGNS.add`; one of another distribution an entry point in the
group `ubt.designs`, one of a study's own a module under `plugins:`. See `sweeps.search.base`.
"""

from sweeps.search.adaptive import Adaptive
from sweeps.search.base import DESIGNS, Search, SearchConfig
from sweeps.search.comparison import Comparison
from sweeps.search.designs import Concat, Grid, LeaveOneOut, ListDesign, OneFactorAtATime, Pairs, ZipDesign
from sweeps.search.latin_hypercube import LatinHypercube
from sweeps.search.proposals import Changes

DESIGNS.add(
    Adaptive, Grid, OneFactorAtATime, Pairs, ZipDesign, LeaveOneOut, ListDesign, LatinHypercube, Concat, Comparison
)

__all__ = ["DESIGNS", "Changes", "Search", "SearchConfig"]
