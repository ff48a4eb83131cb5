import json
import math

import pytest
from pydantic import ValidationError

from ubt.common.errors import UserError
from ubt.config import Config
from ubt.config.load import validate
from ubt.defenses import DEFENSES
from ubt.trials.config import TrialConfig


class Knobs(Config):
    ratio: float = 0.1
    """Fraction of pairs."""
    epochs: int = 2


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Knobs().ratio = 0.2


@pytest.mark.parametrize("given", [{"ratoi": 0.1}, {"ratio": math.nan}, {"ratio": math.inf}, {"epochs": 1.5}])
def test_unknown_fields_and_numbers_that_are_none_are_refused(given):
    with pytest.raises(ValidationError):
        Knobs(**given)


def test_the_docstring_of_a_field_is_its_description():
    assert Knobs.model_json_schema()["properties"]["ratio"]["description"] == "Fraction of pairs."


def test_equal_settings_have_equal_json_however_they_were_written():
    assert Knobs(ratio=1).as_json() == Knobs(ratio="1").as_json() == Knobs(ratio=1.0).as_json()
    assert json.dumps(Knobs(ratio=1).as_json()) == '{"ratio": 1.0, "epochs": 2}'


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
