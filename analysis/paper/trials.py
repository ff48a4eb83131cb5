"""Which trials of a run the paper's figures are drawn from: finished ones, the chosen and the base before others."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from analysis.artifacts import Artifacts, Unreadable, stage_of
from analysis.comparison.compare import is_for_table
from analysis.findings import Findings
from analysis.formatting import victim_key, victim_names
from analysis.paper.density import Separation, Values
from analysis.tables import setting
from ubt.trials.record import State, TrialRecord

Wanted = Callable[[TrialRecord], bool]


def matching(findings: Findings, wanted: Wanted) -> tuple[TrialRecord, ...]:
    """Return the DONE trials that are wanted, those that stand for the run first."""
    chosen = findings.chosen.trials if findings.chosen else ()

    def rank(record: TrialRecord) -> tuple[bool, bool, bool, int]:
        return record not in chosen, not is_for_table(record), bool(record.changes), record.number

    done = (record for record in findings.run.records if record.state is State.DONE)
    return tuple(sorted(filter(wanted, done), key=rank))


def overfits_on(data: str) -> Wanted:
    """Return a test for trials that overfitted the poisoned model to `suspicious` pairs, or to `all`."""

    def test(record: TrialRecord) -> bool:
        trained = setting(record, "defense.overfit_epochs") != 0
        return trained and stage_of(record, "overfit") is not None and setting(record, "defense.overfit_data") == data

    return test


def has_stage(stage: str) -> Wanted:
    """Return a test for trials that ran a stage."""
    return lambda record: stage_of(record, stage) is not None


def by_victim(findings: Findings, *groups: Iterable[TrialRecord]) -> dict[str, tuple[TrialRecord | None, ...]]:
    """Return for each victim's name the first trial of each group on it, None where a group has none."""
    found: dict[str, list[TrialRecord | None]] = {}
    for position, records in enumerate(groups):
        for record in records:
            places = found.setdefault(victim_key(record), [None] * len(groups))
            places[position] = places[position] or record
    names = victim_names(findings.run.records)
    return {name: tuple(found[victim]) for victim, name in names.items() if victim in found}


def poisoned_pairs(artifacts: Artifacts, record: TrialRecord) -> Values:
    """Return the positions of the poisoned pairs in D, `[P]` int64.

    Raises:
        Unreadable: if the artifact is, or if nobody knows which pairs are poisoned.
    """
    indices = artifacts.read(record, "poison").tensor("indices")
    if len(indices) == 0:
        raise Unreadable(f"{record.trial} was given a victim that came poisoned: which pairs are is not known")
    return indices


def overfitted_suspects(artifacts: Artifacts, record: TrialRecord) -> Separation:
    """Return the suspects of a trial of UBT under the overfitted model.

    Raises:
        Unreadable: if an artifact is.
    """
    overfit = artifacts.read(record, "overfit")
    suspects = artifacts.read(record, "suspect").tensor("indices")
    return Separation(
        similarities=overfit.tensor("similarities"),
        poisoned=np.isin(suspects, poisoned_pairs(artifacts, record)),
        before=overfit.tensors.get("similarities_before"),
    )


def overfitted_pairs(artifacts: Artifacts, record: TrialRecord) -> Separation:
    """Return all pairs of D under a model that was overfitted to all of them.

    Raises:
        Unreadable: if an artifact is.
    """
    return _all_pairs(artifacts, record, artifacts.read(record, "overfit").tensor("all_similarities"))


def isolated_pairs(artifacts: Artifacts, record: TrialRecord) -> Separation:
    """Return all pairs of D under the model that tells ABL which to isolate, and how well its own sign does.

    Raises:
        Unreadable: if an artifact is.
    """
    by, ranked = setting(record, "defense.isolate_by"), stage_of(record, "rank")
    own = ranked.diagnostics.get(f"auroc_{by}") if ranked and by != "similarity" else None
    similarities = artifacts.read(record, "isolate").tensor("similarities")
    return _all_pairs(artifacts, record, similarities, "" if own is None else f"({own:.3f} by {by})")


def _all_pairs(artifacts: Artifacts, record: TrialRecord, similarities: Values, remark: str = "") -> Separation:
    marks = np.isin(np.arange(len(similarities)), poisoned_pairs(artifacts, record))
    return Separation(similarities, marks, remark=remark)
