"""One trial as configured: a victim (data, model, attack, implant), a defense, and further metrics. Loads no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ubt.attacks import AttackConfig
from ubt.attacks.patches import BadNets
from ubt.common.errors import Problem, UserError
from ubt.config import Config
from ubt.data import DataConfig
from ubt.data.scenes import Scenes
from ubt.data.vocabulary import class_index
from ubt.defenses import DefenseConfig
from ubt.defenses.ubt import Ubt
from ubt.models.settings import ModelSettings
from ubt.trials.metrics import Metrics


class PretrainSettings(Config):
    """How a clean model is trained from nothing: AdamW, warm-up, cosine decay."""

    epochs: int = Field(default=20, ge=1)
    """Passes over the pre-training pairs."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Highest learning rate, reached after the warm-up."""
    batch_size: int = Field(default=128, ge=2)
    """Pairs a step; each is contrasted with the others of its batch."""
    weight_decay: float = Field(default=0.05, ge=0)
    """AdamW's; biases, gains and the token embedding are not decayed."""
    warmup_steps: int = Field(default=60, ge=0)
    """Steps of linear warm-up; a quarter of all steps at most."""


class ImplantSettings(Config):
    """How the attack is trained into the clean model: AdamW, cosine decay."""

    epochs: int = Field(default=6, ge=1)
    """Passes over the poisoned pairs."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Highest learning rate, reached after the warm-up."""
    batch_size: int = Field(default=128, ge=2)
    """Pairs a step; each is contrasted with the others of its batch."""
    weight_decay: float = Field(default=0.05, ge=0)
    """AdamW's; biases, gains and the token embedding are not decayed."""
    warmup_steps: int = Field(default=20, ge=0)
    """Steps of linear warm-up; a quarter of all steps at most."""
    checkpoint: Path | None = None
    """Weights of a model that is already poisoned; nothing is trained then, and the data's pairs are taken
    as they are."""
    min_asr: float = Field(default=0.5, ge=0, le=1)
    """Least attack success rate of a victim worth defending; below it no defense stage is run."""


class VictimConfig(Config):
    """A backdoored CLIP model: where its parts come from."""

    data: DataConfig = Scenes()
    """Images and captions to train on, labelled images to evaluate on."""
    model: ModelSettings = ModelSettings()
    """The clean model."""
    pretrain: PretrainSettings = PretrainSettings()
    """How the clean model is trained, if it has no weights."""
    attack: AttackConfig = BadNets()
    """Trigger, target and how much is poisoned."""
    implant: ImplantSettings = ImplantSettings()
    """How the backdoor is trained in."""


class TrialConfig(Config):
    """What one pipeline runs."""

    victim: VictimConfig = VictimConfig()
    defense: DefenseConfig = Ubt()
    metrics: Metrics = ()
    """What is measured of the defended model beside ASR and CA; their order does not matter to any result."""

    def check_target(self) -> None:
        """Refuse a target that is no class of the data. Classes that cannot be read are reported with the data.

        Raises:
            UserError: naming the classes there are, or those that share the name.
        """
        try:
            classes = list(self.victim.data.class_names())
        except UserError:
            return
        target = self.victim.attack.target
        if target not in classes:
            some = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
            alike = class_index(target, classes)
            advice = "" if alike is None else f"did you mean `{classes[alike]}`? It has to be written as the class is"
            raise UserError(
                Problem("victim.attack.target", f"is no class of the data; classes: {some}", target, advice)
            )
        if classes.count(target) > 1:
            indices = " and ".join(str(index) for index, name in enumerate(classes) if name == target)
            advice = "captions could not say which is meant: take another class"
            raise UserError(Problem("victim.attack.target", f"names several classes: {indices}", target, advice))

    def check_attack(self) -> None:
        """Refuse an attack whose files cannot be used, as far as that shows without torch.

        Raises:
            UserError: naming them.
        """
        self.victim.attack.check_files()

    def check_defense(self) -> None:
        """Refuse a defense that needs what the victim does not have: clean pairs, or knowledge of the poison.

        Raises:
            UserError: naming what is missing.
        """
        kind = self.defense.as_json()["kind"]
        if self.defense.needs_clean_pairs and not self.victim.data.has_pretrain:
            advice = "give `victim.data.pretrain`, or take a defense that needs none: none, ubt, abl"
            raise UserError(Problem("defense.kind", "needs clean pairs, and the data has none", kind, advice))
        if self.defense.knows_poison and self.victim.implant.checkpoint:
            advice = "a model that came poisoned has no list of its poison: compare with another defense"
            raise UserError(Problem("defense.kind", "needs to know which pairs are poisoned", kind, advice))
