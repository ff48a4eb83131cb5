"""Studies: those that come with the package, `--set`, where relative paths start, and mistakes told all at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from sweeps.planning.plan import plan_study
from sweeps.search.adaptive import Adaptive
from sweeps.search.space import Range
from sweeps.study.config import StudyConfig
from sweeps.study.loading import PATHS, absolute, builtin_studies, load_study
from ubt.attacks import ATTACKS
from ubt.attacks.overlays import Sig
from ubt.common.errors import UserError
from ubt.config import Config, get_path
from ubt.data import DATA_SOURCES
from ubt.defenses import DEFENSES
from ubt.defenses.ubt import Ubt
from ubt.trials.config import VictimConfig

RATE, RATIO = "defense.unlearn_learning_rate", "defense.suspicious_ratio"

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a study file and return its path."""

    def write(file: str = "mine.yaml", /, **tree: object) -> str:
        path = tmp_path / file
        path.write_text(yaml.safe_dump(tree))
        return str(path)

    return write


def paths_among(model: type[Config]) -> set[str]:
    """Return the fields of a configuration that its schema calls paths."""
    properties = model.model_json_schema().get("properties", {})
    return {
        field
        for field, described in properties.items()
        for part in (described, *described.get("anyOf", []))
        if part.get("format") == "path"
    }


def mistakes(reference: str, *assignments: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_study(reference, assignments)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("name", builtin_studies())
def test_every_built_in_study_loads_and_plans(name: str, tmp_path: Path) -> None:
    study = load_study(name, [f"store={tmp_path}"])
    assert study.name == name
    assert plan_study(study).trials >= 1


def test_the_studies_that_need_no_files_of_the_user_can_be_planned_completely(tmp_path: Path) -> None:
    for name in ("smoke", "demo"):
        assert not plan_study(load_study(name, [f"store={tmp_path}"])).notes


def test_a_file_s_study_is_named_after_it_unless_it_says_otherwise(write: Write) -> None:
    assert load_study(write("ablation.yaml")).name == "ablation"
    assert load_study(write("ablation.yaml", name="mine")).name == "mine"
    assert load_study(write("ablation.yaml", name="mine"), name="yours").name == "yours"


def test_set_changes_fields_of_any_depth_and_the_last_one_counts() -> None:
    study = load_study("smoke", ["victim.attack.kind=sig", f"{RATIO}=0.3", f"{RATIO}=0.4", "seeds=[1, 2]", "store=/x"])
    assert study.victim.attack.kind == "sig"
    assert study.defense.suspicious_ratio == 0.4
    assert (study.seeds, study.store) == ((1, 2), "/x")


def test_set_replaces_a_whole_search() -> None:
    study = load_study("smoke", [f"search={{design: ofat, space: {{{RATIO}: [0.1, 0.2]}}}}"])
    assert study.layout() == [{}, {RATIO: 0.1}]  # 0.2 is the base's


@pytest.mark.parametrize("assignment", ["nothing", "=3", f"{RATIO}=[0.1"])
def test_a_set_that_cannot_be_read_is_a_mistake(assignment: str) -> None:
    assert "--set" in mistakes("smoke", assignment)[0]


def test_an_unknown_study_names_those_there_are() -> None:
    (told,) = mistakes("smoek")
    assert "smoek: is neither a file nor a built-in study" in told
    assert all(name in told for name in ("smoke", "demo"))


def test_numbers_are_numbers_however_they_are_written() -> None:
    """YAML 1.1 takes `1e-5` for text: a search would sort, draw and name it as such."""
    space = f"search={{design: grid, space: {{{RATE}: [1e-5, 2e-4]}}}}"
    assert load_study("smoke", [space]).search.space == {RATE: [1e-5, 2e-4]}
    listed = f"{{design: list, trials: [{{{RATE}: 1e-5}}, {{defense: {{kind: none}}}}]}}"
    assert load_study("smoke", [f"search={listed}"]).layout() == [{RATE: 1e-5}, {"defense": {"kind": "none"}}]
    both = f"search={{design: concat, designs: [{{design: ofat, space: {{{RATE}: [1e-5]}}}}, {listed}]}}"
    assert load_study("smoke", [both]).layout() == [{}, {RATE: 1e-5}, {"defense": {"kind": "none"}}]


@pytest.mark.parametrize("values", ['[1, "1", 1.0]', "[2, 3, 2.0]", '["2", 2]'])
def test_values_of_a_search_are_distinct_as_their_field_holds_them(values: str) -> None:
    told = mistakes("smoke", f"search={{design: grid, space: {{defense.overfit_epochs: {values}}}}}")
    assert "search.space.defense.overfit_epochs: these values are one to this field" in told[0]
    assert (
        load_study(
            "smoke", ['search={design: list, trials: [{defense.overfit_epochs: 3}, {defense.overfit_epochs: "3"}]}']
        ).trials
        == 1
    )


@pytest.mark.parametrize("word", ["yes", "on", "true", "True", "off", "0x10", '" 1 "', "1_0"])
def test_what_is_no_number_is_refused_in_fields_choices_ranges_and_lists(word: str) -> None:
    epochs = "defense.overfit_epochs"
    for assignment in (
        f"{epochs}={word}",
        f"seeds=[{word}]",
        f"search={{design: grid, space: {{{epochs}: [{word}, 7]}}}}",
        f"search={{design: grid, space: {{{epochs}: {{low: {word}, high: 7}}}}}}",
        f"search={{design: list, trials: [{{{epochs}: {word}}}]}}",
        f"search={{design: grid, space: {{{RATIO}: [0.1]}}, when: {{{RATIO}: {{{epochs}: {word}}}}}}}",
    ):
        assert any("valid integer" in one or "valid number" in one for one in mistakes("smoke", assignment)), assignment


MANY = "{low: 0.0001, high: 1, step: 0.0001}"
CUBE = f"{{{RATIO}: {MANY}, {RATE}: {MANY}, defense.token_threshold: {MANY}}}"


@pytest.mark.parametrize(
    ("search", "seeds", "told"),
    [
        (f"{{design: grid, space: {CUBE}}}", "[0]", "space: 1,000,000,000,000 configurations are more than"),
        (f"{{design: pairs, space: {CUBE}}}", "[0]", "configurations are more than the 100,000"),
        (
            f"{{design: ofat, space: {{{RATIO}: {{low: 0.1, high: 1, step: 1.0e-9}}}}}}",
            "[0]",
            f"values of {RATIO} are more",
        ),
        (f"{{design: concat, designs: [{{design: grid, space: {CUBE}}}]}}", "[0]", "configurations are more than"),
        (
            f"{{design: optuna, n_trials: 1000000000, space: {{{RATIO}: [0.1, 0.2]}}}}",
            "[0]",
            "makes 1,000,000,000 trials",
        ),
        (
            f"{{design: optuna, n_trials: 1000, space: {{{RATIO}: [0.1, 0.2]}}}}",
            str([*range(101)]),
            "makes 101,000 trials",
        ),
    ],
)
def test_more_than_a_study_may_have_is_told_before_it_is_laid_out(search: str, seeds: str, told: str) -> None:
    assert told in mistakes("smoke", f"search={search}", f"seeds={seeds}")[-1]


def test_a_comparison_of_too_much_is_told() -> None:
    many = "search.defenses.ubt.search={design: grid, space: {defense.overfit_epochs: {low: 0, high: 999}, "
    many += "defense.unlearn_epochs: {low: 0, high: 199}}}"
    assert "configurations are more than the 100,000" in mistakes("table", many)[0]


def test_conditions_hold_however_their_values_are_written() -> None:
    search = f"search={{design: ofat, space: {{{RATIO}: [0.3]}}, when: {{{RATIO}: {{defense.overfit_epochs: '2'}}}}}}"
    assert load_study("smoke", ["defense.overfit_epochs=2", search]).layout() == [{}, {RATIO: 0.3}]
    assert load_study("smoke", ["defense.overfit_epochs=3", search]).layout() == [{}]


def test_set_reaches_keys_with_dots_and_items_of_lists() -> None:
    study = load_study(
        "smoke", [f"search.space.{RATIO}=[0.1, 0.2]", f"search.space.{RATIO}.1=0.3", "seeds=[1, 2]", "seeds.1=5"]
    )
    assert study.search.space[RATIO] == [0.1, 0.3]
    assert study.seeds == (1, 5)
    table = load_study(
        "table", ["search.attacks.sig.poison_rate=0.07", f"search.defenses.ubt.search.space.{RATIO}=[0.5, 0.6]"]
    )
    assert table.search.attacks["sig"].poison_rate == 0.07
    assert table.search.defenses["ubt"].search.space[RATIO] == [0.5, 0.6]


@pytest.mark.parametrize("reference", ["x" * 300, "x/" * 3000, "a\0b", "a\ud800", ".", "/dev/zero", "~"])
def test_what_can_be_no_study_is_told(reference: str) -> None:
    assert len(mistakes(reference)) == 1


@pytest.mark.parametrize("field", ["victim.model.checkpoint", "victim.implant.checkpoint", "victim.data.pairs"])
def test_a_path_that_no_file_can_have_is_told(field: str) -> None:
    data = "victim.data={kind: csv, pairs: p.csv, labels: l.csv, classes: c.txt}"
    for name in ("x" * 300, "x/" * 3000):
        load = [data, f"{field}={name}"]
        if field.endswith("pairs"):
            assert plan_study(load_study("smoke", load)).notes
        else:
            assert "there is no such file" in " ".join(mistakes("smoke", *load))


@pytest.mark.parametrize(
    ("gpus", "given", "expected"),
    [(0, "auto", "auto"), (0.5, "auto", "bfloat16"), (1, "float32", "float32"), (0, "bfloat16", "bfloat16")],
)
def test_the_precision_of_trials_with_gpus_is_in_their_configuration(gpus: float, given: str, expected: str) -> None:
    study = load_study("smoke", [f"resources.gpus_per_trial={gpus}", f"victim.model.precision={given}"])
    for changes in ({}, {RATIO: 0.1}, {"victim.attack.poison_rate": 0.2}):
        assert study.trial(changes).victim.model.precision == expected


def test_a_precision_that_is_searched_is_not_run_twice_under_two_names() -> None:
    space = "search={design: ofat, space: {victim.model.precision: [float32, bfloat16]}}"
    layout = load_study("smoke", [space, "resources.gpus_per_trial=1"]).layout()
    assert layout == [{}, {"victim.model.precision": "float32"}]


class TestPaths:
    DATA: ClassVar = {"kind": "csv", "pairs": "data/pairs.csv", "labels": "../labels.csv", "classes": "classes.txt"}

    def test_in_a_file_they_start_at_its_folder(
        self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reference = write(victim={"data": self.DATA}, store="my store")
        monkeypatch.chdir(tmp_path.parent)
        for given in (reference, str(Path(reference).relative_to(tmp_path.parent))):
            study = load_study(given)
            assert study.victim.data.pairs == tmp_path / "data/pairs.csv"
            assert study.victim.data.labels.resolve() == tmp_path.parent / "labels.csv"
            assert study.victim.data.classes == str(tmp_path / "classes.txt")
            assert study.store == str(tmp_path / "my store")

    def test_in_set_and_in_built_in_studies_they_start_at_the_current_folder(
        self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        monkeypatch.chdir(folder)
        study = load_study(write(victim={"data": self.DATA}), ["victim.data.labels=l.csv", "store=artifacts"])
        assert study.victim.data.labels == folder / "l.csv"
        assert study.store == str(folder / "artifacts")
        assert study.victim.data.pairs == tmp_path / "data/pairs.csv"
        assert load_study("cifar10").victim.data.pairs == folder / "cifar10-photos/pairs.csv"

    def test_what_names_no_file_stays(self, write: Write) -> None:
        data = {**self.DATA, "classes": "imagenet", "templates": "openai"}
        attack = {"kind": "badnets", "target": "tench"}
        study = load_study(write(victim={"data": data, "attack": attack}, store="s3://bucket/ubt"))
        assert (study.victim.data.classes, study.victim.data.templates) == ("imagenet", "openai")
        assert study.store == "s3://bucket/ubt"
        shards = {**data, "kind": "webdataset", "pairs": "https://host/{00..03}.tar"}
        study = load_study(write(victim={"data": shards, "attack": attack}))
        assert study.victim.data.pairs == "https://host/{00..03}.tar"

    def test_absolute_ones_and_the_home_folder_stay_what_they_are(self, write: Write, monkeypatch: Any) -> None:
        monkeypatch.setenv("HOME", "/home/ann")
        assert load_study(write(store="/srv/ubt")).store == "/srv/ubt"
        assert load_study(write(store="~/ubt")).store == "/home/ann/ubt"

    def test_those_in_the_search_are_treated_alike(self, write: Write, tmp_path: Path) -> None:
        for name in ("a.safetensors", "b.safetensors"):
            (tmp_path / name).touch()
        path = "victim.implant.checkpoint"
        a, b = str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")
        space = {"design": "grid", "space": {path: ["a.safetensors", "b.safetensors"]}}
        assert load_study(write(search=space)).search.space == {path: [a, b]}
        listed = {"design": "list", "trials": [{path: "a.safetensors"}, {"victim.data": self.DATA}]}
        first, second = load_study(write(search=listed)).layout()
        assert first == {path: a}
        assert second["victim.data"]["pairs"] == str(tmp_path / "data/pairs.csv")
        both = {"design": "concat", "designs": [space, {"design": "list", "trials": [{path: "b.safetensors"}]}]}
        assert load_study(write(search=both)).layout() == [{path: a}, {path: b}]

    def test_every_field_that_the_configuration_calls_a_path_is_made_absolute(self) -> None:
        named = {field for model in (*DATA_SOURCES, *ATTACKS, *DEFENSES) for field in paths_among(model)}
        said = {field for model in (*DATA_SOURCES, *ATTACKS, *DEFENSES) for field in model.path_fields}
        assert named == said - {"classes", "templates"}, "which are texts: they may be `imagenet` or `openai`"
        for section in ("model", "implant"):
            model = VictimConfig.model_fields[section].annotation
            assert {f"victim.{section}.{field}" for field in paths_among(model)} <= set(PATHS)

    def test_those_of_a_comparison_s_attacks_and_defenses_start_there_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Sig, "path_fields", ("stencil",))
        monkeypatch.setattr(Ubt, "path_fields", ("weights",))
        tree = {
            "attacks": {"mine": {"kind": "sig", "stencil": "s.png"}, "other": {"kind": "badnets", "stencil": "s.png"}},
            "defenses": {
                "ubt": {"defense": {"kind": "ubt", "weights": "w.pt"}, "search": {"space": {"defense.weights": ["v"]}}}
            },
        }
        made = absolute(tree, "search", tmp_path)
        assert made["attacks"]["mine"]["stencil"] == str(tmp_path / "s.png")
        assert made["attacks"]["other"]["stencil"] == "s.png"
        assert made["defenses"]["ubt"]["defense"]["weights"] == str(tmp_path / "w.pt")
        assert made["defenses"]["ubt"]["search"]["space"] == {"defense.weights": [str(tmp_path / "v")]}


class TestMistakes:
    def test_are_told_all_at_once_each_with_its_place(self, write: Write) -> None:
        reference = write(
            victim={
                "model": {"name": "RN51"},
                "attack": {"kind": "badnets", "target": "bannana", "poison_rate": 2},
                "implant": {"epochs": "many", "checkpoint": "nowhere.pt"},
            },
            defense={"kind": "ubt", "suspicous_ratio": 0.1},
            search={"design": "grid", "space": {"defense.nonsense": [1], "defense.token_threshold": [0.5, 1.5]}},
        )
        told = "\n".join(mistakes(reference))
        for where, what in (
            ("victim.attack.poison_rate", "less than 1"),
            ("victim.implant.epochs", "valid integer"),
            ("defense.suspicous_ratio", "did you mean `suspicious_ratio`"),
            ("victim.model.name", "nearest: RN50"),
            ("victim.attack.target", "is no class of the data"),
            ("victim.implant.checkpoint", "there is no such file"),
            ("search.space.defense.nonsense", "no such field"),
            ("search.space.defense.token_threshold", "less than or equal to 1"),
        ):
            (line,) = [line for line in told.splitlines() if f": {where}: " in line]
            assert what in told[told.index(line) :]
        assert told.count(f"{reference}: ") == 8

    @pytest.mark.parametrize(
        ("assignment", "where", "what"),
        [
            ("defense.overfit_epochs=few", "defense.overfit_epochs", "integer"),
            ("defense.overfit_epochs=-1", "defense.overfit_epochs", "greater than or equal to 0"),
            ("defense.epochs=1", "defense.epochs", "unknown field"),
            ("victim.attack.kind=badnet", "victim.attack.kind", "badnets"),
            ("victim.attack.target=bananna", "victim.attack.target", "banana"),
            ("victim.model.name=tiny", "victim.model.name", "tiny-rn"),
            ("search.design=gird", "search.design", "grid"),
            ("search.sampler=tep", "search.sampler", "tpe"),
            ("search.n_trials=0", "search.n_trials", "greater than or equal to 1"),
            ("seeds=[1, 1]", "seeds", "distinct"),
            ("seeds=[]", "seeds", "at least 1"),
            ("name=a/b", "name", "pattern"),
            ("resources.gpus_per_trial=0.3", "resources.gpus_per_trial", "1/n"),
            ("resources.gpus_per_trial=4", "resources.gpus_per_trial", "one GPU, and the others would stand idle"),
            ("objectives.ca_floor=2", "objectives.ca_floor", "less than or equal to 1"),
            ("victim.implant.checkpoint=nowhere.pt", "victim.implant.checkpoint", "no such file"),
            ("victim.model.checkpoint=nowhere.pt", "victim.model.checkpoint", "no such file"),
            ("search.space={defense.nonsense: [1]}", "search.space.defense.nonsense", "no such field"),
            ("search.space={nonsense.x: [1]}", "search.space.nonsense.x", "paths begin with"),
            ("search.space={defense.token_threshold: [2]}", "search.space.defense.token_threshold", "less than"),
            ("search.space={defense.token_threshold: []}", "search.space.defense.token_threshold", "at least 1"),
            ("search.space={defense.unlearn_samples: [8, 8]}", "search.space.defense.unlearn_samples", "distinct"),
            ("search.space={victim.attack.target: [banana, kiwi]}", "search.space.victim.attack.target", "no class"),
            ("search.space={victim.model.name: [tiny-rn, RN51]}", "search.space.victim.model.name", "no such model"),
        ],
    )
    def test_of_one_field_are_told_once_with_their_place(self, assignment: str, where: str, what: str) -> None:
        (told,) = mistakes("smoke", assignment)
        assert f": {where}: " in told
        assert what in told

    @pytest.mark.parametrize("limits", ["low: 0.5, high: 2", "low: -1, high: 0.5", "low: 1, high: 0.5"])
    def test_the_ends_of_a_range_are_checked(self, limits: str) -> None:
        (told,) = mistakes("smoke", f"search.space={{defense.token_threshold: {{{limits}}}}}")
        assert "search.space.defense.token_threshold" in told

    def test_a_range_of_fractions_for_a_whole_number_is_found_between_its_ends(self) -> None:
        (told,) = mistakes("smoke", "search.space={defense.unlearn_samples: {low: 1.0, high: 64.0}}")
        assert "search.space.defense.unlearn_samples" in told
        assert "integer" in told

    def test_listed_trials_are_checked_each(self) -> None:
        trials = "[{}, {defense.nonsense: 1}, {defense.token_threshold: 2, victim.attack.target: kiwi}]"
        told = mistakes("smoke", f"search={{design: list, trials: {trials}}}")
        assert [line.split(": ")[1] for line in told] == ["search.trials.1", "search.trials.2"]
        assert len(told) == 2

    def test_values_that_exclude_each_other_are_found_before_anything_runs(self, write: Write, tmp_path: Path) -> None:
        (tmp_path / "clip.safetensors").touch()
        space = {"victim.model.random_weights": [False, True], "victim.model.checkpoint": [None, "clip.safetensors"]}
        (told,) = mistakes(write(search={"design": "grid", "space": space}))
        assert "configuration.3: victim.model" in told
        assert "not several" in told

    def test_a_grid_over_a_range_without_steps_is_told_how_to_mend_it(self) -> None:
        space = f"search={{design: grid, space: {{{RATIO}: {{low: 0.1, high: 0.2}}}}}}"
        (told,) = mistakes("smoke", space)
        assert f"search.space.{RATIO}: a grid needs `step`, or a list of values" in told

    def test_lists_of_different_length_cannot_be_zipped(self) -> None:
        space = f"{{{RATIO}: [0.1, 0.2], defense.unlearn_samples: [8]}}"
        (told,) = mistakes("smoke", f"search={{design: zip, space: {space}}}")
        assert "smoke: search.space: zip needs as many values for each path" in told

    def test_designs_within_designs_are_checked(self) -> None:
        inner = "{design: ofat, space: {defense.nonsense: [1], defense.token_threshold: [2]}}"
        told = mistakes("smoke", f"search={{design: concat, designs: [{inner}]}}")
        assert [line.split(": ")[1] for line in told] == [
            "search.space.defense.nonsense",
            "search.space.defense.token_threshold",
        ]

    @pytest.mark.parametrize(
        "when", ["{defense.token_treshold: {defense.kind: ubt}}", "{defense.token_threshold: {defense.knd: ubt}}"]
    )
    def test_a_condition_on_a_field_that_does_not_exist_is_a_mistake(self, when: str) -> None:
        (told,) = mistakes("smoke", f"search.when={when}")
        assert "smoke: search.when.defense." in told
        assert "no such field" in told

    @pytest.mark.parametrize(
        ("asked", "value"), [("defense.detector.kind", "knnn"), ("defense.selection", "best"), ("defense.kind", "utb")]
    )
    def test_a_condition_on_a_value_that_the_field_does_not_allow_is_a_mistake(self, asked: str, value: str) -> None:
        (told,) = mistakes("smoke", f"search.when={{defense.token_threshold: {{{asked}: {value}}}}}")
        assert f"smoke: search.when.{asked}: unknown" in told
        assert value in told

    @pytest.mark.parametrize("detector", ["clean", "knn"])
    def test_a_condition_may_ask_for_a_kind_that_the_base_is_not(self, detector: str) -> None:
        when = "{defense.token_threshold: {defense.detector.kind: [clean, lof], defense.kind: [ubt, finetune]}}"
        load_study("smoke", [f"defense.detector={detector}", f"search.when={when}"])

    def test_a_condition_sees_the_kind_of_a_part_that_is_searched_whole(self) -> None:
        space = f"{{defense.detector: [clean, lof, {{kind: knn, neighbours: 4}}], {RATIO}: [0.7, 0.8]}}"
        when = f"{{{RATIO}: {{defense.detector.kind: [lof, knn]}}}}"
        study = load_study("smoke", [f"search={{design: grid, space: {space}, when: {when}}}"])
        found = [(study.trial(changes).defense.detector.kind, RATIO in changes) for changes in study.layout()]
        assert found == [("clean", False), *[("lof", True)] * 2, *[("knn", True)] * 2]

    def test_what_a_condition_leaves_out_is_no_mistake(self, write: Write, tmp_path: Path) -> None:
        (tmp_path / "clip.safetensors").touch()
        random, checkpoint = "victim.model.random_weights", "victim.model.checkpoint"
        space = {random: [False, True], checkpoint: [None, "clip.safetensors"]}
        search = {"design": "grid", "space": space, "when": {checkpoint: {random: False}}}
        assert len(load_study(write(search=search)).layout()) == 3

    def test_a_mistake_of_the_base_is_not_repeated_for_each_value(self) -> None:
        told = mistakes("smoke", "victim.attack.target=kiwi", "search.space={defense.unlearn_samples: [1, 2, 3]}")
        assert len(told) == 1

    def test_what_depends_on_a_field_that_is_wrong_is_not_guessed_at(self, write: Write) -> None:
        """The default target is no class of these data, but nobody chose it."""
        classes = Path(write("x.yaml")).with_name("classes.txt")
        classes.write_text("cat\ndog\n")
        data = {"kind": "csv", "pairs": "p.csv", "labels": "l.csv", "classes": "classes.txt"}
        (told,) = mistakes(write(victim={"data": data, "attack": {"kind": "sig", "target": 3}}))
        assert "victim.attack.target" in told
        assert "string" in told

    @pytest.mark.parametrize("text", ["- a\n- b\n", "name: [\n", "", "3\n", "\x00"])
    def test_a_file_that_holds_no_study_is_named(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        (told,) = mistakes(str(path))
        assert str(path) in told

    def test_keys_that_are_no_words_are_mistakes(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        path.write_text("1: 2\n")
        assert mistakes(str(path))


def test_the_base_differs_in_nothing() -> None:
    study = load_study("smoke")
    assert study.trial({}).as_json() == {**study.base, "metrics": []}


def test_a_change_reaches_its_field_and_no_other() -> None:
    study = load_study("smoke")
    changed = study.trial({RATIO: 0.3}).as_json()
    assert get_path(changed, RATIO) == 0.3
    assert study.trial({RATIO: get_path(study.base, RATIO)}) == study.trial({})


def test_a_study_survives_json() -> None:
    for name in builtin_studies():
        study = load_study(name)
        assert StudyConfig.model_validate_json(study.model_dump_json()) == study


def test_the_default_study_is_valid(write: Write) -> None:
    study = load_study(write())
    assert study.layout() == [{}]


def test_ranges_and_lists_are_told_apart() -> None:
    space = {RATIO: {"low": 0.1, "high": 0.2}, RATE: [1e-4]}
    study = StudyConfig.model_validate({"name": "x", "search": {"design": "optuna", "space": space}})
    assert isinstance(study.search, Adaptive)
    assert study.search.space == {RATIO: Range(low=0.1, high=0.2), RATE: [1e-4]}


def test_what_is_asked_for_twice_is_one_trial_and_what_is_written_otherwise_is_checked():
    study = load_study("smoke")
    asked = {"defense.unlearn_samples": 1}
    assert study.trial(asked) is study.trial(dict(asked))
    with pytest.raises(UserError, match="unlearn_samples"):
        study.trial({"defense.unlearn_samples": True})
