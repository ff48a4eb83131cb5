"""What is said of an exported model beside its weights: how to use it, where it comes from, what it is worth.

Loads no torch.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from ubt.common.model_choice import Which
from ubt.config import Config
from ubt.trials.rates import Rates
from ubt.trials.record import TrialRecord


class Preprocessing(Config):
    """How images are made ready for the model; those that the record's rates were measured on were."""

    image_size_px: int
    """Side of the square that the model is given."""
    mean: tuple[float, ...]
    """What is subtracted from pixels in [0, 1], for each channel."""
    std: tuple[float, ...]
    """What they are then divided by."""
    interpolation: str
    """How they are resized."""
    resize_mode: str
    """`shortest`: the shorter side is resized to the image size, and the centre cropped."""


class Origin(Config):
    """Where a model comes from, and what was measured of it."""

    which: Which
    """`clean`, the model before the attack; `poisoned`, the one with the backdoor; `defended`, the one without it."""
    study: str = ""
    """Name of the study; empty for a model that no study made."""
    trial: str = ""
    seed: int | None = None
    epoch: int | None = None
    """The epoch that the model is of, counted in its stage; None for the last one."""
    stage: str = ""
    key: str = ""
    """Stage and key of the model's artifact in the store."""
    computed_again: bool = False
    """The store did not have the model, which was computed anew: on a GPU that may give other bits."""
    val: Rates | None = None
    test: Rates | None = None
    """Its rates on the validation and the test split, as far as they were measured."""
    record: TrialRecord | None = None
    """All that is known of the trial."""


class ModelNote(Config):
    """What is said of exported weights, in a JSON file beside them."""

    format_version: int = 1
    name: str
    """The model's name in open_clip, or `tiny-rn`."""
    activation: Literal["gelu", "quickgelu"]
    """What the network computes between its linear layers; with the other one these weights are another network."""
    parameters: int
    preprocessing: Preprocessing
    architecture: dict[str, JsonValue]
    """The network as open_clip describes it: what `model_cfg` is in its configuration files."""
    weights: str
    """Name of the file with the weights."""
    sha256: str
    """Its checksum."""
    files: tuple[str, ...]
    """Everything that was written, this file too."""
    load: str
    """Python that opens the model with open_clip; empty if open_clip does not know the architecture by a name."""
    origin: Origin
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of the packages that wrote the file."""
