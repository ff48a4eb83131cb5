"""Effects of hand-made runs, whose differences are known by construction."""

import pytest

from analysis.effects import find_effects
from analysis.effects.output import effect_text, effects_latex, effects_markdown, effects_table
from analysis.findings import find
from ubt.trials.labels import TrialLabel
from ubt.trials.record import State

RATIO, SAMPLES = "defense.suspicious_ratio", "defense.unlearn_samples"


@pytest.fixture
def effects_of(run_of):
    """Works out the effects of records, of a run of the given design."""

    def find_them(*records, design="", space=()):
        run = run_of(*records, space=space)
        return find_effects(find(type(run)(**{**vars(run), "design": design})))

    return find_them


def left_out(record, name, words=""):
    return record.model_copy(update={"label": TrialLabel(component=name, words=words)})


@pytest.fixture
def ablation(trial):
    """The base and a component left out, with three seeds whose victims differ far more than the effect is large."""
    base = [left_out(trial(seed, seed=seed, asr=asr, ca=0.8), "base") for seed, asr in enumerate((0.1, 0.3, 0.5))]
    without = [
        left_out(
            trial(3 + seed, seed=seed, asr=asr, ca=0.78, changes={"defense.overfit_epochs": 0}),
            "no-overfit",
            "without overfitting",
        )
        for seed, asr in enumerate((0.12, 0.33, 0.54))
    ]
    return (*base, *without)


def test_an_effect_is_the_mean_of_the_seeds_differences_with_students_interval(effects_of, ablation):
    (effect,) = effects_of(*ablation).effects
    assert effect.contrast.name == "without overfitting"
    assert effect.seeds == (0, 1, 2)
    # Differences 0.02, 0.03, 0.04: mean 0.03, standard error 0.01 / √3, t(0.975, 2) = 4.3027.
    assert effect.asr.mean == pytest.approx(0.03)
    assert (effect.asr.low, effect.asr.high) == pytest.approx(
        (0.03 - 4.3027 * 0.01 / 3**0.5, 0.03 + 4.3027 * 0.01 / 3**0.5), abs=1e-6
    )
    assert effect.asr.spread == "seeds"


def test_seeds_that_differ_by_the_same_leave_the_sampling_of_images(effects_of, ablation):
    (effect,) = effects_of(*ablation).effects
    assert effect.ca.mean == pytest.approx(-0.02)
    assert effect.ca.low < -0.02 < effect.ca.high
    assert (effect.ca.spread, effect.ca.p, effect.ca.significant) == ("images", None, False)


def test_one_seed_has_newcombes_interval_and_no_p(effects_of, ablation):
    (effect,) = effects_of(ablation[0], ablation[3]).effects
    assert effect.asr.mean == pytest.approx(0.02)
    assert (effect.asr.spread, effect.asr.p) == ("images", None)
    assert effect.asr.low < 0 < effect.asr.high
    assert effect_text(effect).endswith("one seed")


def test_only_seeds_that_both_sides_have_are_paired(effects_of, ablation, trial):
    lost = trial(1, seed=1, state=State.FAILED, label="base")
    (effect,) = effects_of(ablation[0], lost, *ablation[2:]).effects
    assert effect.seeds == (0, 2)
    assert effect.asr.mean == pytest.approx(0.03)


def test_a_component_that_was_never_measured_beside_the_base_is_said_to_be_missing(effects_of, ablation, trial):
    lost = left_out(trial(9, state=State.FAILED, changes={"defense.retain_weight": 0}), "no-retention")
    found = effects_of(*ablation, lost)
    assert found.effects[-1].asr is None
    assert "no retention" in effects_markdown(found).splitlines()[-1]


def test_of_an_unknown_attack_there_are_effects_on_clean_accuracy(effects_of, trial):
    records = [
        left_out(trial(0, asr=None), "base"),
        left_out(trial(1, asr=None, ca=0.7, changes={RATIO: 0.02}), "ratio"),
    ]
    (effect,) = effects_of(*records).effects
    assert effect.asr is None
    assert effect.ca.mean == pytest.approx(-0.1)


def test_it_reads_as_a_sentence(effects_of, ablation):
    (effect,) = effects_of(*ablation).effects
    told = "without overfitting: ASR +3.0 points (+0.5 … +5.5), CA −2.0 ("
    assert effect_text(effect).startswith(told)
    assert effect_text(effect).endswith("), 3 pairs of seeds")


def grid(trial, rates, seeds=(0,)):
    """Return a trial for each (ratio, samples) → (ASR, CA), as changes to the base of 0.01 and 64."""
    records = []
    for ratio, samples in rates:
        changes = {p: v for p, v, base in ((RATIO, ratio, 0.01), (SAMPLES, samples, 64)) if v != base}
        for seed in seeds:
            asr, ca = rates[ratio, samples]
            wiggle = (seed * 7 + len(records)) % 3 * 0.001  # the seeds differ, and not by the same everywhere
            records.append(trial(len(records), seed=seed, asr=asr + wiggle, ca=ca, changes=changes))
    return records


FACTORIAL = {(0.01, 64): (0.3, 0.8), (0.02, 64): (0.2, 0.8), (0.01, 16): (0.4, 0.79), (0.02, 16): (0.2, 0.79)}


def test_a_grid_has_effects_averaged_over_the_rest_and_their_interaction(effects_of, trial):
    found = effects_of(*grid(trial, FACTORIAL), design="grid", space=(RATIO, SAMPLES))
    by_name = {effect.contrast.name: effect for effect in found.effects}
    assert set(by_name) == {"suspicious_ratio 0.01 → 0.02", "unlearn_samples 64 → 16"}
    assert by_name["suspicious_ratio 0.01 → 0.02"].asr.mean == pytest.approx(-0.15, abs=0.003)
    assert by_name["suspicious_ratio 0.01 → 0.02"].settings == 2
    (interaction,) = found.interactions
    assert interaction.contrast.factors == (RATIO, SAMPLES)
    assert interaction.asr.mean == pytest.approx(0.2 - 0.2 - 0.4 + 0.3, abs=0.003)


def test_effects_of_pairs_are_those_at_the_base(effects_of, trial):
    found = effects_of(*grid(trial, FACTORIAL), design="pairs", space=(RATIO, SAMPLES))
    ratio = next(effect for effect in found.effects if effect.contrast.factors == (RATIO,))
    assert (ratio.settings, ratio.asr.mean) == (1, pytest.approx(-0.1, abs=0.003))
    assert found.interactions[0].asr.mean == pytest.approx(-0.1, abs=0.003)


def test_pairs_whose_values_leave_the_bases_out_are_held_against_their_first(effects_of, trial):
    crossed = {(r, s): (0.3 if (r, s) != (0.05, 16) else 0.1, 0.8) for r in (0.02, 0.05) for s in (32, 16)}
    found = effects_of(*grid(trial, {(0.01, 64): (0.5, 0.8), **crossed}), design="pairs", space=(RATIO, SAMPLES))
    assert {effect.contrast.name for effect in found.effects} == {
        "suspicious_ratio 0.02 → 0.05",
        "unlearn_samples 32 → 16",
    }
    (interaction,) = found.interactions
    assert interaction.asr.mean == pytest.approx(-0.2, abs=0.003)


def test_one_factor_at_a_time_has_an_effect_for_every_other_value(effects_of, trial):
    rates = {(0.01, 64): (0.3, 0.8), (0.02, 64): (0.2, 0.8), (0.05, 64): (0.1, 0.8), (0.01, 16): (0.4, 0.8)}
    found = effects_of(*grid(trial, rates), design="ofat", space=(RATIO, SAMPLES))
    assert [effect.contrast.after for effect in found.effects] == ["0.02", "0.05", "16"]
    assert found.interactions == ()


def test_a_setting_of_the_rest_that_lacks_a_seed_is_left_out_for_every_seed(effects_of, trial):
    records = grid(trial, FACTORIAL, seeds=(0, 1))
    found = effects_of(*records[:-1], design="grid", space=(RATIO, SAMPLES))
    ratio = next(effect for effect in found.effects if effect.contrast.factors == (RATIO,))
    assert (ratio.seeds, ratio.settings) == ((0, 1), 1)


def test_effects_are_of_validation_where_a_trial_has_no_test_rates(effects_of, ablation):
    cut = ablation[0].model_copy(update={"test": None})
    assert effects_of(*ablation).split == "test"
    assert effects_of(cut, *ablation[1:]).split == "val"


def test_a_search_by_results_has_no_effects(effects_of, trial):
    records = grid(trial, FACTORIAL)
    assert effects_of(*records, design="optuna", space=(RATIO, SAMPLES)).effects == ()
    asked = [record.model_copy(update={"asked_as": "search/1"}) for record in records]
    assert effects_of(*asked, space=(RATIO, SAMPLES)).effects == ()


def test_p_values_are_corrected_for_the_number_of_effects(effects_of, trial):
    rates = {(0.01, 64): (0.3, 0.8), (0.02, 64): (0.2, 0.8), (0.05, 64): (0.25, 0.8)}
    first, second = effects_of(*grid(trial, rates, seeds=range(5)), design="ofat", space=(RATIO,)).effects
    smaller, larger = sorted((first.asr, second.asr), key=lambda rate: rate.p)
    assert smaller.p_holm == pytest.approx(2 * smaller.p)
    assert larger.p_holm == pytest.approx(max(larger.p, 2 * smaller.p))


def test_the_chain_stands_beside_each_effect(effects_of, ablation):
    found = effects_of(*ablation)
    assert found.chain == ("recall",)
    assert (found.effects[0].chain["recall"].mean, found.effects[0].chain["recall"].difference) == (0.5, 0.0)
    assert found.effects[0].chain["AUROC"].mean is None


def test_the_table_has_a_line_for_each_effect_and_interaction(effects_of, trial):
    table = effects_table(effects_of(*grid(trial, FACTORIAL), design="grid", space=(RATIO, SAMPLES)))
    assert list(table["kind"]) == ["effect", "effect", "interaction"]
    assert table.loc[0, "asr"] == pytest.approx(-0.15, abs=0.003)
    assert {"asr_low", "asr_high", "asr_p_holm", "ca", "recall", "recall_difference"} <= set(table)


def test_names_are_escaped_for_latex_and_markdown(effects_of, ablation):
    odd = [
        record.model_copy(update={"label": TrialLabel(component="x", words="50 % of a_b | c & d")})
        if record.label.leaves_out
        else record
        for record in ablation
    ]
    found = effects_of(*odd)
    assert r"50 \% of a\_b | c \& d & \textbf{$+$3.0" in effects_latex(found)
    assert r"50 % of a_b \| c & d" in effects_markdown(found)
