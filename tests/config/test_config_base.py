import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, create_model

from ubt.common.errors import UserError
from ubt.config import Config
from ubt.config.base import descriptions
from ubt.config.load import validate
from ubt.defenses import DEFENSES
from ubt.trials.config import TrialConfig


class Knobs(Config):
    ratio: float = 0.1
    """Fraction of pairs."""
    epochs: int = 2
    flag: bool = False
    either: int | float = 0
    many: tuple[int, ...] = ()
    named: dict[str, float | None] = Field(default_factory=dict)
    text_or_number: int | str = 0


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Knobs().ratio = 0.2


@pytest.mark.parametrize("given", [{"ratoi": 0.1}, {"ratio": math.nan}, {"ratio": math.inf}, {"epochs": 1.5}])
def test_unknown_fields_and_numbers_that_are_none_are_refused(given):
    with pytest.raises(ValidationError):
        Knobs(**given)


def test_the_docstring_of_a_field_is_its_description():
    assert Knobs.model_json_schema()["properties"]["ratio"]["description"] == "Fraction of pairs."


def test_a_field_that_a_class_writes_anew_is_described_anew():
    class Fewer(Knobs):
        ratio: float = 0.2
        """Fraction of images."""
        epochs: int = Field(3, description="As long as this.")

    class Fewest(Fewer):
        ratio: float = 0.3

    assert descriptions(Knobs)["ratio"] == "Fraction of pairs."
    assert descriptions(Fewer) == {**descriptions(Knobs), "ratio": "Fraction of images.", "epochs": "As long as this."}
    assert descriptions(Fewest)["ratio"] == ""
    assert "description" not in Fewest.model_json_schema()["properties"]["ratio"]


def test_a_class_without_source_has_no_descriptions():
    made = create_model("Made", __base__=Config, ratio=(float, 0.1))
    assert descriptions(made) == {"ratio": ""}


def test_equal_settings_have_equal_json_however_they_were_written():
    assert Knobs(ratio=1).as_json() == Knobs(ratio="1").as_json() == Knobs(ratio=1.0).as_json()
    assert json.dumps(Knobs(ratio=1).as_json()).startswith('{"ratio": 1.0, "epochs": 2')


@pytest.mark.parametrize("defense", list(DEFENSES))
def test_a_trial_survives_the_trip_through_json(defense):
    trial = TrialConfig(defense=defense())
    tree = json.loads(json.dumps(trial.as_json()))
    assert TrialConfig.model_validate(tree) == trial
    assert type(TrialConfig.model_validate(tree).defense) is defense


@pytest.mark.parametrize("kind", [None, ["ubt"], 3])
def test_a_kind_that_is_no_name_is_told_what_names_there_are(kind):
    with pytest.raises(UserError) as caught:
        validate(TrialConfig, {"defense": {"kind": kind}}, "study.yaml")
    (problem,) = caught.value.problems
    assert problem.where.endswith("defense.kind")
    assert problem.message.startswith("is a name; allowed: none, ")


NO_NUMBERS = [
    True,
    False,
    "yes",
    "on",
    "true",
    "0x10",
    " 1 ",
    "1_000",
    "010",
    "1:30",
    "inf",
    "nan",
    "\u0661",
    "",
    [],
    {},
]


@pytest.mark.parametrize("given_value", [*NO_NUMBERS, math.nan, math.inf, -math.inf, 2**63, 10**400, "9" * 5000])
def test_what_is_no_number_is_taken_for_none(given_value):
    for field in ("ratio", "epochs", "either"):
        with pytest.raises(ValidationError):
            Knobs(**{field: given_value})
    with pytest.raises(ValidationError):
        Knobs(many=[given_value])
    with pytest.raises(ValidationError):
        Knobs(named={"x": given_value})


@pytest.mark.parametrize("given_value", [0, 1, 1.0, "1", "y", "", None, "maybe", []])
def test_a_number_is_no_truth_value(given_value):
    with pytest.raises(ValidationError):
        Knobs(flag=given_value)


@pytest.mark.parametrize(
    ("written", "value"), [("yes", True), ("On", True), ("TRUE", True), ("no", False), ("off", False)]
)
def test_truth_values_as_older_yaml_writes_them(written, value):
    assert Knobs(flag=written).flag is value


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_a_whole_number_is_one_however_it_is_written(number):
    assert Knobs(epochs=number).epochs == Knobs(epochs=str(number)).epochs == number
    assert type(Knobs(either=number).either) is int
    if float(number) == number and abs(number) < 2**53:
        assert Knobs(epochs=float(number)).epochs == number
        assert type(Knobs(either=float(number)).either) is float


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_one_however_it_is_written(number):
    assert Knobs(ratio=number).ratio == Knobs(ratio=repr(number)).ratio == Knobs(ratio=f"{number:.17e}").ratio == number


def test_text_that_may_be_a_number_or_a_text_stays_what_it_is():
    assert Knobs(text_or_number="1").text_or_number == "1"
    with pytest.raises(ValidationError):
        Knobs(text_or_number=True)


def test_what_subclasses_and_plug_ins_hold_is_as_strict():
    class More(Knobs):
        inner: Knobs = Knobs()

    with pytest.raises(ValidationError, match="valid integer"):
        More(inner={"epochs": True})
    assert More.model_json_schema()["properties"]["ratio"]["type"] == "number"
