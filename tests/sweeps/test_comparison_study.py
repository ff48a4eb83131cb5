"""Comparisons as studies: their mistakes, their plans, their sessions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_session import rates

from sweeps.cli.plan import plan_text
from sweeps.planning.plan import plan_study
from sweeps.planning.trials import TrialPlanner, shared_epochs
from sweeps.run.folder import new_run
from sweeps.run.preflight import trials_of, victims_of
from sweeps.run.progress import Tally
from sweeps.run.resume import check_same_study, with_more_trials
from sweeps.scheduling.session import Session
from sweeps.scheduling.stage_scheduler import StageScheduler
from sweeps.search.comparison import STAND_IN, Comparison
from sweeps.search.comparison_proposer import ComparisonProposer
from sweeps.study.config import StudyConfig
from sweeps.study.loading import builtin_studies, load_study
from ubt.common.errors import UserError
from ubt.common.formatting import describe
from ubt.engine.graph import build_pipeline
from ubt.trials.assignment import Assignment
from ubt.trials.config import TrialConfig
from ubt.trials.labels import label_of_text
from ubt.trials.record import StageRecord, State, TrialRecord, read_records

RATIO, EPOCHS, RATE = "defense.suspicious_ratio", "defense.overfit_epochs", "defense.finetune_learning_rate"
DATA = {"kind": "scenes", "train_pairs": 200, "pretrain_pairs": 100, "val_images": 24, "test_images": 24}
ATTACKS: dict[str, Any] = {"badnets": {"kind": "badnets"}, "sig": {"kind": "sig"}}
NONE = {"defense": {"kind": "none"}}
UBT = {
    "defense": {"kind": "ubt", "overfit_epochs": 2},
    "search": {"design": "grid", "space": {RATIO: [0.02, 0.03], EPOCHS: [1, 4]}},
}


def tree(**search: Any) -> dict[str, Any]:
    compared = {"attacks": ATTACKS, "search_on": ["badnets"], "defenses": {"none": NONE, "ubt": UBT}}
    return {
        "name": "toy",
        "victim": {"data": DATA},
        "seeds": [0, 1],
        "search": {"design": "comparison", **compared, **search},
    }


def study(folder: Path | None = None, **search: Any) -> StudyConfig:
    return StudyConfig.model_validate({**tree(**search), "store": str(folder) if folder else None})


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Write a comparison as a file and load it."""

    def load(**search: Any) -> StudyConfig:
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(tree(**search)))
        return load_study(str(path), [f"store={tmp_path}/store"])

    return load


def of_ubt(**fields: Any) -> dict[str, Any]:
    return {"none": NONE, "ubt": {**UBT, **fields}}


def searching(**search: Any) -> dict[str, Any]:
    return of_ubt(search=search)


class TestMistakes:
    @pytest.mark.parametrize(
        ("search", "where", "what"),
        [
            ({"search_on": ["badnet"]}, "search.search_on", "unknown: badnet; `attacks` has badnets, sig"),
            ({"search_on": ["sig", "sig"]}, "search.search_on", "distinct"),
            ({"choose_by": "median"}, "search.choose_by", "mean"),
            ({"attacks": {}}, "search.attacks", "at least 1"),
            ({"defenses": {}}, "search.defenses", "at least 1"),
            ({"defenses": {"a/b": NONE}}, "search.defenses", "'a/b'"),
            ({"attacks": {"x": {"kind": "sgi"}}, "search_on": []}, "search.attacks.x.kind", "sig"),
            ({"attacks": {**ATTACKS, "x": {"kind": "sig", "target": "kiwi"}}}, "search.attacks.x.target", "no class"),
            ({"attacks": {**ATTACKS, "x": {"kind": "sig", "period": 2}}}, "search.attacks.x.period", "`periods`"),
            ({"space": {RATIO: [0.1]}}, "search.space", "the `search` of a defense"),
            (
                {"defenses": of_ubt(defense={"kind": "ubt", "suspicous_ratio": 1})},
                "search.defenses.ubt.defense.suspicous_ratio",
                "`suspicious_ratio`",
            ),
            (
                {"defenses": searching(design="grid", space={"victim.attack.kind": ["sig"]})},
                "search.defenses.ubt.search",
                "no other: victim.attack.kind",
            ),
            (
                {"defenses": searching(design="grid", space={RATIO: [2]})},
                f"search.defenses.ubt.search.space.{RATIO}",
                "less than or equal to 1",
            ),
            (
                {"defenses": searching(design="grid", space={RATE: [1e-3]})},
                f"search.defenses.ubt.search.space.{RATE}",
                "no such field",
            ),
            (
                {"defenses": searching(design="grid", space={RATIO: {"low": 0.1, "high": 0.2}})},
                f"search.defenses.ubt.search.space.{RATIO}",
                "needs `step`",
            ),
            (
                {"defenses": searching(design="list", trials=[{}, {RATIO: 3}])},
                f"search.defenses.ubt.search.trials.1: {RATIO}",
                "less than or equal to 1",
            ),
            ({"defenses": searching(design="optuna", space={RATIO: [0.1]})}, "search.defenses.ubt.search", "grid"),
        ],
    )
    def test_are_told_with_their_place(self, load: Any, search: dict[str, Any], where: str, what: str) -> None:
        with pytest.raises(UserError) as caught:
            load(**search)
        told = [str(problem) for problem in caught.value.problems]
        assert len(told) == 1, told
        assert f": {where}" in told[0]
        assert what in told[0]

    def test_are_told_all_at_once(self, load: Any) -> None:
        attacks = {"badnets": {"kind": "badnets", "target": "kiwi"}, "sig": {"kind": "sig", "target": "fig"}}
        grid = {"design": "grid", "space": {RATIO: [2], "defense.nonsense": [1]}}
        with pytest.raises(UserError) as caught:
            load(
                attacks=attacks,
                search_on=["wanet"],
                defenses={"a": {**UBT, "search": grid}, "b": {**UBT, "search": grid}},
            )
        told = "\n".join(str(problem) for problem in caught.value.problems)
        for where in (
            "search.search_on: unknown: wanet",
            "search.attacks.badnets.target: is no class",
            "search.attacks.sig.target: is no class",
            *(f"search.defenses.{name}.search.space.{path}" for name in "ab" for path in (RATIO, "defense.nonsense")),
        ):
            assert where in told
        assert len(caught.value.problems) == 7

    def test_what_yaml_reads_as_text_becomes_a_number(self, load: Any) -> None:
        fine = {"defense": {"kind": "finetune"}, "search": {"design": "grid", "space": {RATE: ["1e-4", "2e-3"]}}}
        loaded = load(defenses={"finetune": fine})
        assert loaded.search.defenses["finetune"].search.space == {RATE: [1e-4, 2e-3]}

    def test_more_trials_cannot_be_added_by_number(self, tmp_path: Path) -> None:
        run = new_run(tmp_path, "toy")
        run.write_study(study())
        with pytest.raises(UserError, match="name further attacks or defenses in the study and say --extend"):
            with_more_trials(run, study(), 5)

    def test_the_floor_decides_what_is_chosen_and_may_not_change_under_a_run(self, tmp_path: Path) -> None:
        run = new_run(tmp_path, "toy")
        run.write_study(study())
        other = study().with_parts(objectives={"ca_floor": 0.5})
        with pytest.raises(UserError, match=r"objectives\.ca_floor"):
            check_same_study(run, other)
        assert check_same_study(run, other, extend=True) == other


class TestPlan:
    def test_counts_searches_once_and_the_table_with_every_seed(self, tmp_path: Path) -> None:
        planned = plan_study(study(tmp_path))
        assert (planned.configurations, planned.searched, planned.trials) == (4 + 4, 4, 4 + 4 * 2)
        counts = {stage.stage: (stage.trials, stage.unique) for stage in planned.stages}
        assert counts["pretrain"] == (12, 2)
        assert counts["implant"] == (12, 4)
        assert counts["suspect"] == (8, 2 + 4)  # two ratios searched; the own one of 0.01 on 2 attacks × 2 seeds
        assert STAND_IN in planned.notes

    def test_says_so(self, tmp_path: Path) -> None:
        text = plan_text(plan_study(study(tmp_path)))
        assert "toy: comparison, 4 configurations to choose from + 4 × 2 seeds = 12 trials" in text
        assert f"Note: {STAND_IN}" in text

    def test_the_epochs_kept_are_those_of_all_settings(self) -> None:
        assert shared_epochs(study()) == {"overfit": (1, 2, 4)}

    def test_every_victim_is_prepared_and_every_trial_counted(self) -> None:
        assert {victim.attack.as_json()["kind"] for victim in victims_of(trials_of(study()))} == {"badnets", "sig"}
        assert study().trials == 12

    def test_searches_measure_nothing_but_the_objectives(self) -> None:
        measured = study().with_parts(metrics=["retrieval"])
        planner = TrialPlanner(measured, "/store", content_key=lambda data: "the data")
        stages = [[node.spec.name for node in planner.pipeline(one, 0)] for one in measured.proposals()]
        assert ["retrieval" in names for names in stages] == [False] * 4 + [True] * 4


def stages_of(assignment: Assignment) -> tuple[StageRecord, ...]:
    """Return the records of all stages of a trial, as if they had been computed."""
    pipeline = build_pipeline(TrialConfig.model_validate(assignment.config), assignment.seed, assignment.data_key)
    return tuple(StageRecord(stage=node.spec.name, key=node.key, reused=False, seconds=1) for node in pipeline)


class Toy:
    """A session of a comparison in which trials end as told; ASR is the distance of the ratio from 0.03."""

    def __init__(self, folder: Path, given: StudyConfig) -> None:
        self.records = folder / "records"
        self.session = Session(
            proposer=ComparisonProposer(given.search, given.objectives.ca_floor),
            planner=TrialPlanner(given, "/store", content_key=lambda data: "the data"),
            replicates=len(given.seeds),
            scheduler=StageScheduler(),
            records=self.records,
            known=read_records(self.records),
        )

    def run(self, most: int | None = None) -> list[str]:
        """Run trials one after the other, `most` at most, and return their labels."""
        labels: list[str] = []
        while len(labels) != most and (assignment := self.session.next_assignment()) is not None:
            ratio = assignment.config["defense"].get("suspicious_ratio", 1.0)
            measured = {
                "val": rates(min(1.0, abs(ratio - 0.03))),
                "poisoned_val": rates(0.9),
                "stages": stages_of(assignment),
            }
            self.session.ended(assignment.trial, assignment.record(State.DONE).model_copy(update=measured))
            labels.append(str(assignment.label))
        return labels

    @property
    def answers(self) -> dict[str, tuple[str, int, Any]]:
        return {r.trial: (str(r.label), r.seed, r.config) for r in read_records(self.records)}


class TestSession:
    def test_runs_searches_with_the_first_seed_and_the_table_with_all(self, tmp_path: Path) -> None:
        toy = Toy(tmp_path, study())
        assert len(toy.run()) == 12
        assert toy.session.finished
        seeds: dict[str, list[int]] = {}
        for record in read_records(toy.records):
            seeds.setdefault(str(record.label), []).append(record.seed)
        assert seeds == {
            "search:ubt/badnets": [0] * 4,
            **{f"table:{name}/{attack}": [0, 1] for attack in ATTACKS for name in ("none", "ubt")},
        }

    def test_the_table_s_trials_are_its_own_though_the_search_ran_the_same(self, tmp_path: Path) -> None:
        toy = Toy(tmp_path, study())
        toy.run()
        same = [r for r in read_records(toy.records) if r.seed == 0 and str(r.label).endswith("ubt/badnets")]
        table = next(record for record in same if record.label.cell.phase == "table")
        assert table.config["defense"]["suspicious_ratio"] == 0.03
        assert table.config in [record.config for record in same if record.label.cell.phase == "search"]

    @pytest.mark.parametrize("ended", range(1, 12))
    def test_goes_on_after_an_interruption_as_if_nothing_had_happened(self, tmp_path: Path, ended: int) -> None:
        whole, cut = Toy(tmp_path / "whole", study()), tmp_path / "cut"
        whole.run()
        assert len(Toy(cut, study()).run(ended)) == ended
        again = Toy(cut, study())
        assert len(again.run()) == 12 - ended
        assert again.answers == whole.answers

    def test_another_attack_reuses_what_is_known(self, tmp_path: Path) -> None:
        Toy(tmp_path, study()).run()
        more = study(attacks={**ATTACKS, "blended": {"kind": "blended"}})
        assert sorted(Toy(tmp_path, more).run()) == ["table:none/blended"] * 2 + ["table:ubt/blended"] * 2

    def test_another_defense_reuses_what_is_known(self, tmp_path: Path) -> None:
        Toy(tmp_path, study()).run()
        more = study(defenses={"finetune": {"defense": {"kind": "finetune"}}, "none": NONE, "ubt": UBT})
        toy = Toy(tmp_path, more)
        assert sorted(toy.run()) == ["table:finetune/badnets"] * 2 + ["table:finetune/sig"] * 2
        assert len({record.trial for record in read_records(toy.records)}) == 16

    def test_progress_names_no_best_trial_of_different_victims(self) -> None:
        described = {"study": "toy", "trial": "t", "number": 0, "seed": 0, "config": {}, "changes": {}}
        done = {"state": "DONE", "val": rates(0.1), "poisoned_val": rates(0.9)}
        for label, best in (("", True), ("table:ubt/sig", False)):
            record = TrialRecord.model_validate({**described, **done, "label": label_of_text(label)})
            tally = Tally(2, 0.02)
            tally.note(record)
            assert (tally.best is not None) == best
            assert ("best ASR" in tally.line()) == best


def test_a_trial_s_changes_make_it_what_its_configuration_says() -> None:
    given = study()
    for proposal in given.proposals():
        trial = given.trial(proposal.changes).as_json()
        assert trial["victim"]["attack"].items() >= proposal.changes["victim.attack"].items()
        assert trial["defense"].items() >= proposal.changes["defense"].items()
        assert trial["victim"]["data"]["train_pairs"] == 200


def test_whole_parts_are_described_by_kind_and_what_is_not_by_default() -> None:
    *_, last = study().layout()
    assert describe(last) == "attack=sig, defense=ubt (overfit_epochs 2)"


@pytest.mark.parametrize("name", ["table", "robust"])
class TestBuiltIn:
    def test_searches_are_of_one_size_for_every_defense(self, name: str) -> None:
        proposals = load_study(name).proposals()
        search = [str(proposal.label).partition(":")[2] for proposal in proposals if proposal.replicates]
        assert {search.count(label) for label in search} == {12}

    def test_the_table_has_the_poisoned_model_and_attacks_that_were_not_searched_on(self, name: str) -> None:
        search = load_study(name).search
        assert isinstance(search, Comparison)
        assert "none" in search.defenses
        assert set(search.searched_attacks) < set(search.attacks)


@pytest.mark.parametrize("knob", ["ratio", "epochs", "threshold", "samples"])
def test_ablations_vary_one_knob_on_both_sides_of_the_paper_s_default(knob: str) -> None:
    given = load_study(f"ablation-{knob}")
    default = {"ratio": 0.01, "epochs": 5, "threshold": 0.1, "samples": 64}[knob]
    ((path, values),) = given.search.space.items()
    assert knob in path
    assert default in values
    assert min(values) < default < max(values)
    assert len(given.seeds) == 3


def test_the_components_study_names_what_each_trial_leaves_out() -> None:
    labels = [str(proposal.label) for proposal in load_study("ablation-components").proposals()]
    assert labels[0] == "base"
    assert {"no-overfit", "whole-captions", "random-tokens"} < set(labels)
    assert len(set(labels)) == len(labels)


def test_labels_reach_the_trials_of_a_design(tmp_path: Path) -> None:
    given = load_study("ablation-components", ["search.components=[no-overfit]", "seeds=[0]"])
    proposer = given.search.proposer(given, new_run(tmp_path, "toy").journal)
    planner = TrialPlanner(given, "/store", content_key=lambda data: "the data")
    records = [planner(proposal, 0).assignment.record(State.RUNNING) for proposal in iter(proposer.propose, None)]
    labels = [str(record.label) for record in records]
    assert labels == ["base", "no-overfit"]


def test_comparisons_survive_json() -> None:
    for name in ("table", "robust"):
        given = load_study(name)
        assert StudyConfig.model_validate(json.loads(given.model_dump_json())) == given
    assert set(builtin_studies()) >= {"smoke", "demo", "table", "robust"}
