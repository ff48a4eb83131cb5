"""The result of a run in words: what moved, what was chosen and how, and what it took."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from analysis.findings import Findings
from analysis.formatting import count, listed, movement, percent, points
from analysis.points.configurations import Configuration, Estimate, Outcome, Split
from analysis.points.doubt import moved
from analysis.summary import Summary, earlier_text, failures_of, failures_text, stopped_of, stopped_text
from ubt.common.choice import KNOWS, RuleName
from ubt.common.formatting import duration
from ubt.trials.record import State

COMPARISON = (
    "Each defense takes part with settings that its own search chose on the validation split; the table is measured "
    "on the test split."
)


NO_ATTACK = (
    "Nothing can be triggered, so there is no attack success rate, and without one neither a front nor a choice. The "
    "table of trials has the clean accuracy of each."
)


@dataclass(frozen=True)
class Change:
    """One rate, of the poisoned model and of the chosen one."""

    name: str
    before: Estimate
    after: Estimate


@dataclass(frozen=True)
class Opening:
    """What the page opens with: the title, how it came about, and the numbers behind it (none without a choice)."""

    title: str
    detail: str
    changes: tuple[Change, ...]
    effort: str


def opening(findings: Findings, summary: Summary) -> Opening:
    """Return the result of a run in words."""
    effort = f"{states_text(findings)} {time_text(summary)}{findings.run.budget_text}"
    if not findings.measured:
        return Opening("No trial is done yet", "The rates of the trials will stand here.", (), effort)
    if findings.run.compared:
        return Opening(findings.run.compared, COMPARISON, (), effort)
    found = compared(findings.chosen)
    if not findings.attacked and findings.run.rule == "lowest_asr":
        return Opening("No attack is known", NO_ATTACK, (), effort)
    if found is None or findings.chosen is None:
        title = "No trial keeps clean accuracy" if findings.run.rule == "lowest_asr" else "No trial qualifies"
        return Opening(title, _no_choice(findings), (), effort)
    split, before, after = found
    if guess := by_chance(findings):
        return Opening("The poisoned model classifies by chance", guess, (), effort)
    changes = [Change("clean accuracy", before.ca, after.ca)]
    if before.asr and after.asr:
        changes.insert(0, Change("attack success rate", before.asr, after.asr))
    clear = dict(zip(("attack success rate", "clean accuracy"), moved(findings.chosen, _SPLITS[split]), strict=True))
    said = ", ".join(
        f"{change.name.removesuffix(' rate')} {movement(change.before.mean, change.after.mean, clear[change.name])}"
        for change in changes
    )
    return Opening(said[0].upper() + said[1:], _choice(findings, split), tuple(changes), effort)


_SPLITS: dict[str, Split] = {"test": "test", "validation": "val"}


def by_chance(findings: Findings) -> str:
    """Say that the poisoned model knows no more than guessing, where its clean accuracy is no better; else nothing."""
    victim = findings.victim
    found = victim.poisoned_test or victim.poisoned_val if victim else None
    classes = len(victim.first.classes) if victim else 0
    if found is None or not classes or found.ca.low > 1 / classes:
        return ""
    return (
        f"Its clean accuracy of {percent(found.ca.mean)} ({found.ca.interval}) is that of guessing among "
        f"{classes} classes ({percent(1 / classes)}): no rate "
        "below says anything about a defense. Give it more data, epochs or capacity first."
    )


def compared(chosen: Configuration | None) -> tuple[str, Outcome, Outcome] | None:
    """Return the split to report (test, if measured), and its rates before and after the defense."""
    if chosen and chosen.poisoned_test and chosen.test:
        return "test", chosen.poisoned_test, chosen.test
    if chosen and chosen.poisoned_val and chosen.val:
        return "validation", chosen.poisoned_val, chosen.val
    return None


def states_text(findings: Findings) -> str:
    """Say how many trials there are, in which states."""
    records = findings.run.records
    states = Counter(record.state for record in records)
    earlier = earlier_text(sum(bool(record.label.epoch_of) for record in records))
    more = {State.FAILED: failures_text(failures_of(records)), State.PRUNED: stopped_text(stopped_of(records))}
    named = {state: f"{state.lower()}{more.get(state, '')}" for state in State}
    if len(states) == 1:
        return f"{count(len(records), 'trial')}{earlier}, {'all ' if records[1:] else ''}{named[records[0].state]}."
    parts = listed(f"{states[state]:,} {named[state]}" for state in State if states[state])
    return f"{count(len(records), 'trial')}{earlier}: {parts}."


def time_text(summary: Summary) -> str:
    """Say what the run took and what sharing stages saved."""
    seconds = summary.seconds
    if summary.stages.computed + summary.stages.reused == 0:
        return "No stage is finished yet."
    if summary.stages.reused == 0:
        return f"The stages took {duration(seconds.computed)} to compute; none was shared."
    whole = seconds.computed + seconds.saved
    share = f", {percent(seconds.saved / whole)} of the work" if whole else ""
    return (
        f"The stages took {duration(seconds.computed)} to compute; sharing "
        f"{summary.stages.reused:,} of {summary.stages.computed + summary.stages.reused:,} saved "
        f"{duration(seconds.saved)}{share}."
    )


def _choice(findings: Findings, split: str) -> str:
    return (
        f"Measured on the {split} split. Chosen on the validation split: {_RULES[findings.run.rule]} that "
        f"keeps clean accuracy within {points(findings.run.ca_floor)} of the poisoned model. The choice knew "
        f"{KNOWS[findings.run.rule]}.{_epochs(findings)}{_otherwise(findings)}"
    )


def _epochs(findings: Findings) -> str:
    """Say that models after every epoch were candidates, where they were, and of which trial the chosen one is."""
    chosen = findings.chosen
    if not findings.run.every_epoch or chosen is None:
        return ""
    said = f" Candidates were all {len(findings.candidates):,} models that were judged after an epoch"
    if chosen.at:
        later = "no trial has judged it on the test split yet, going on with the sweep (--resume) does"
        return f"{said}; {chosen.title} is an earlier epoch: {later}."
    trial, _, epoch = chosen.epoch_of.partition("@")
    return f"{said}; {chosen.title} is {trial} after epoch {epoch}." if epoch else f"{said}."


_RULES: dict[RuleName, str] = {
    "lowest_asr": "the lowest attack success rate",
    "trigger_free": "of those whose selected pairs are no longer alike, the one that loses least",
}


def _otherwise(findings: Findings) -> str:
    """Say what the other rule would have chosen of the same trials; nothing where it has nothing to look at."""
    others = {rule: choice for rule, choice in findings.choices.items() if rule != findings.run.rule}
    return "".join(f" {_RULE_NAMES[rule]} {_of_other(choice, findings)}" for rule, choice in others.items())


_RULE_NAMES: dict[RuleName, str] = {
    "lowest_asr": "By the lowest attack success rate",
    "trigger_free": "Without the trigger",
}


def _of_other(choice: Configuration | None, findings: Findings) -> str:
    if choice is None:
        return "none would have been chosen."
    if choice is findings.chosen:
        return "the same would have been chosen."
    found = choice.test or choice.val
    asr = f"attack success {percent(found.asr.mean)} at " if found and found.asr else ""
    rates = f", {asr}clean accuracy {percent(found.ca.mean)}" if found else ""
    return f"{choice.title} would have been chosen{rates}."


def _no_choice(findings: Findings) -> str:
    if findings.run.rule == "trigger_free":
        return (
            "On validation none whose selected pairs are no longer alike is within "
            f"{points(findings.run.ca_floor)} of the poisoned model’s clean accuracy. So none is chosen; unlearn "
            "longer or faster, or allow a larger loss (objectives.ca_floor)."
        )
    best = max(findings.measured, key=lambda configuration: configuration.val.ca.mean if configuration.val else 0)
    highest = f"; the highest, {best.title}, reaches {percent(best.val.ca.mean)}" if best.val else ""
    poisoned = best.poisoned_val
    model = f"the poisoned model’s {percent(poisoned.ca.mean)}" if poisoned else "a poisoned model that was measured"
    return (
        f"On validation none is within {points(findings.run.ca_floor)} of {model}{highest}. So none is chosen, "
        "and the front below is to be read with care."
    )
