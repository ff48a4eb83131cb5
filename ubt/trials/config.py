"""One trial as configured: a victim (data, model, attack, implant), a defense, and further metrics. Loads no torch."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from ubt.attacks import Attack, AttackConfig
from ubt.attacks.patches import BadNets
from ubt.common.errors import Problem, UserError
from ubt.common.hashing import digest_file
from ubt.common.paths import is_file
from ubt.config import Config, is_as
from ubt.data import DataConfig
from ubt.data.scenes import Scenes
from ubt.data.vocabulary import class_index
from ubt.defenses import DefenseConfig
from ubt.defenses.ubt import Ubt
from ubt.models.settings import ModelSettings
from ubt.trials.judging import Judging
from ubt.trials.metrics import Metrics
from ubt.trials.poison import GivenPoison, MadePoison, Poison, PoisonConfig, read_poison_list


class PretrainSettings(Config):
    """How a clean model is trained from nothing: AdamW, warm-up, cosine decay."""

    epochs: int = Field(default=20, ge=1, le=100_000)
    """Passes over the pre-training pairs."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Highest learning rate, reached after the warm-up."""
    batch_size: int = Field(default=128, ge=2)
    """Pairs a step, all if there are fewer; each is contrasted with the others of its batch."""
    weight_decay: float = Field(default=0.05, ge=0)
    """AdamW's; biases, gains and the token embedding are not decayed."""
    warmup_steps: int = Field(default=60, ge=0)
    """Steps of linear warm-up; a quarter of all steps at most."""
    micro_batch_size: int | None = Field(default=None, ge=2, exclude_if=is_as(None))
    """Pairs that gradients are computed for at a time, so that a large batch fits a small GPU; by default all of a
    batch. The loss is the same, each pair contrasted with the whole batch; batch norm sees so many at a time."""


class ImplantSettings(Config):
    """How the attack is trained into the clean model: AdamW, cosine decay."""

    epochs: int = Field(default=6, ge=1, le=100_000)
    """Passes over the poisoned pairs."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Highest learning rate, reached after the warm-up."""
    batch_size: int = Field(default=128, ge=2)
    """Pairs a step, all if there are fewer; each is contrasted with the others of its batch."""
    weight_decay: float = Field(default=0.05, ge=0)
    """AdamW's; biases, gains and the token embedding are not decayed."""
    warmup_steps: int = Field(default=20, ge=0)
    """Steps of linear warm-up; a quarter of all steps at most."""
    checkpoint: Path | None = None
    """Weights of a model that is already poisoned; nothing is trained then, and the data's pairs are taken
    as they are, unless `poison` says that the attack is to poison them."""
    min_asr: float = Field(default=0.5, ge=0, le=1)
    """Least attack success rate of a victim worth defending; below it no defense stage is run."""
    micro_batch_size: int | None = Field(default=None, ge=2, exclude_if=is_as(None))
    """Pairs that gradients are computed for at a time, so that a large batch fits a small GPU; by default all of a
    batch. The loss is the same, each pair contrasted with the whole batch; batch norm sees so many at a time."""


class VictimConfig(Config):
    """A backdoored CLIP model: where its parts come from."""

    data: DataConfig = Scenes()
    """Images and captions to train on, labelled images to evaluate on."""
    model: ModelSettings = ModelSettings()
    """The clean model."""
    pretrain: PretrainSettings = PretrainSettings()
    """How the clean model is trained, if it has no weights."""
    attack: AttackConfig | None = BadNets()
    """Trigger, target and how much is poisoned; null if it is not known: then the pairs are taken as they are, and
    there is no ASR."""
    poison: PoisonConfig | None = Field(default=None, exclude_if=is_as(None))
    """Whether the attack poisons the pairs (`kind: made`) or they are poisoned already (`given`). By default they are
    given if the model came poisoned (`implant.checkpoint`) or no attack is known, and made otherwise."""
    implant: ImplantSettings = ImplantSettings()
    """How the backdoor is trained in."""

    @property
    def poisoning(self) -> Poison:
        """Return where the poison comes from, also where the study leaves that to follow from the rest."""
        if self.poison is not None:
            return self.poison
        return GivenPoison() if self.implant.checkpoint or self.attack is None else MadePoison()


class TrialConfig(Config):
    """What one pipeline runs."""

    victim: VictimConfig = VictimConfig()
    defense: DefenseConfig = Ubt()
    metrics: Metrics = ()
    """What is measured of the defended model beside ASR and CA; their order does not matter to any result."""
    judging: Judging = Field(default=Judging(), exclude_if=is_as(Judging()))
    """Which epochs' models are judged, and on how many images."""

    def check_target(self) -> None:
        """Refuse a target that is no class of the data. Classes that cannot be read are reported with the data.

        Raises:
            UserError: naming the classes there are, or those that share the name.
        """
        try:
            classes = list(self.victim.data.class_names())
        except UserError:
            return
        if self.victim.attack is None:
            return
        target = self.victim.attack.target
        if target not in classes:
            some = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
            advice = _meant(target, classes)
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
        if self.victim.attack is not None:
            self.victim.attack.check_files()

    def check_poison(self) -> None:
        """Refuse poison that cannot be made, or is not what its list says, as far as that shows without the data.

        Raises:
            UserError: with what is wrong, and what may be done.
        """
        attack, poison = self.victim.attack, self.victim.poisoning
        if isinstance(poison, MadePoison):
            if attack is None:
                advice = "name the attack, or say `poison: {kind: given}`: the pairs are then taken as they are"
                raise UserError(Problem("victim.poison.kind", "there is no attack to make poison with", "made", advice))
            return
        if poison.manifest is not None and poison.image_pattern is not None:
            message = "says a second time which pairs are poisoned"
            raise UserError(Problem("victim.poison.image_pattern", message, poison.image_pattern, "keep one of both"))
        listed = read_poison_list(poison.manifest) if poison.manifest else None
        if attack is None:
            return
        if listed and listed.attack is not None and not _same_trigger(attack, listed.attack, listed.attack_files):
            advice = f"say `attack: {json.dumps(dict(listed.attack))}`, or null for no ASR"
            message = f"is not what the pairs are poisoned with, going by {listed.source}"
            raise UserError(Problem("victim.attack.kind", message, attack.as_json()["kind"], advice))
        if attack.learns and not (listed and listed.trigger):
            advice = (
                "give the manifest of `ubt poison`, which holds the trigger; another one that was learnt is a picture: "
                "`attack: {kind: patch, image: FILE}`"
            )
            message = "learns its trigger, and the one that these pairs are poisoned with is not known"
            raise UserError(Problem("victim.attack.kind", message, attack.as_json()["kind"], advice))

    def check_defense(self) -> None:
        """Refuse a defense that needs what the victim does not have: clean pairs, or knowledge of the poison.

        Raises:
            UserError: naming what is missing.
        """
        kind = self.defense.as_json()["kind"]
        if self.defense.needs_clean_pairs and not self.victim.data.has_pretrain:
            advice = "give `victim.data.pretrain`, or take a defense that needs none: none, ubt, abl"
            raise UserError(Problem("defense.kind", "needs clean pairs, and the data has none", kind, advice))
        poison = self.victim.poisoning
        if self.defense.knows_poison and isinstance(poison, GivenPoison) and not poison.known:
            advice = "give the list of poisoned pairs as `victim.poison.manifest`, or compare with another defense"
            raise UserError(Problem("defense.kind", "needs to know which pairs are poisoned", kind, advice))


_HOW_MUCH = {"poison_rate", "poison_count"}
"""Settings of an attack that say nothing of its trigger."""
_attack: TypeAdapter[Attack] = TypeAdapter(AttackConfig)


def _meant(target: str, classes: Sequence[str]) -> str:
    """Return advice that names the classes which may be meant, by writing or by a word of their names, if any."""
    alike = class_index(target, classes)
    if alike is not None:
        return f"did you mean `{classes[alike]}`? It has to be written as the class is"
    holding = [name for name in classes if target.casefold() in name.casefold().split()]
    near = holding or difflib.get_close_matches(target, classes, n=3, cutoff=0.75)
    return f"did you mean {' or '.join(f'`{name}`' for name in near[:5])}?" if near else ""


def _same_trigger(attack: Attack, listed: Mapping[str, JsonValue], files: Mapping[str, str]) -> bool:
    """Tell whether an attack stamps what a list says, whose files are compared by content wherever they lie."""
    try:
        other = _attack.validate_python(dict(listed))
    except ValidationError:  # of a kind that is not installed here
        return False
    aside = {*_HOW_MUCH, *attack.path_fields}
    here = {name: digest_file(path) for name, path in attack.files().items() if is_file(path)}
    return here == dict(files) and attack.model_dump(mode="json", exclude=aside) == other.model_dump(
        mode="json", exclude=aside
    )
