"""What a defended model is worth: the `evaluate` stage, and those of the further metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ubt.attacks import Split
from ubt.common.errors import StageFault
from ubt.common.statistics import wilson_interval
from ubt.data.base import Images, Labels, Subset, subset
from ubt.engine.context import Output, PrivilegedContext, StageContext
from ubt.engine.poisoning import PoisonManifest
from ubt.methods.evaluation import Evaluator
from ubt.methods.feeding import Indices
from ubt.methods.training import Recipe, train_on_pairs
from ubt.models.clip import Clip, State, embed_images, embed_tokens
from ubt.trials.metrics import LinearProbe, PacBayes, Rebound, Retrieval
from ubt.trials.rates import Rates


def evaluate(context: PrivilegedContext) -> Output:
    """Return the model's `Rates` on both splits as facts. Its last epoch's, on validation, are not computed again."""
    clip, evaluator = context.clip("model"), context.evaluator
    val = context.judged("model") or evaluator.rates(clip, "val", by_class=True)
    return Output(facts={"val": val.as_json(), "test": evaluator.rates(clip, "test", by_class=True).as_json()})


SPLITS: tuple[Split, ...] = ("val", "test")


def evaluate_clean(context: PrivilegedContext) -> Output:
    """Return the CA of the clean model on validation, as `Rates` without an attack: none has been made yet."""
    clip = context.clip("clean")
    return Output(facts={"val": Evaluator(context.data, None).rates(clip, "val", by_class=True).as_json()})


def rebound(context: PrivilegedContext) -> Output:
    """Return the `Rates` of the fine-tuned model on both splits as facts. The model itself is not kept.

    A model that is handed on is trained further. A backdoor that is hidden rather than removed may return then,
    though nothing is poisoned any more.

    Raises:
        StageFault: if the loss is not finite.
    """
    settings, clip, pairs = context.settings(Rebound), context.clip("model"), benign_pairs(context)
    tokens = clip.tokenize(pairs.captions)
    recipe = Recipe(settings.epochs, settings.learning_rate, settings.batch_size, weight_decay=0.0, warmup_steps=0)
    for _ in train_on_pairs(clip, pairs, tokens, recipe, context.seed, "rebound"):
        pass  # one epoch after the other; only the last model is evaluated
    return Output(facts={split: context.evaluator.rates(clip, split).as_json() for split in SPLITS})


def diagnose_rebound(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return CA and, if the attack is known, ASR on both splits."""
    rates = {split: Rates.model_validate(output.facts[split]) for split in SPLITS}
    found = {f"{split}_{name}": getattr(rates[split], name) for split in SPLITS for name in ("asr", "ca")}
    return {name: rate for name, rate in found.items() if rate is not None}


def benign_pairs(context: PrivilegedContext) -> Subset:
    """Return clean pairs drawn without replacement: of the pre-training pairs if there are any, else of D.

    Of D those that are not poisoned; all, if the victim came poisoned and it is unknown which are. The draw
    is another than that of the defender's clean pairs: the next user of a model has pairs of their own.
    """
    given, count = context.data.pretrain, context.settings(Rebound).pairs
    pairs = context.pairs if given is None else given
    clean = np.setdiff1d(np.arange(len(pairs)), context.manifest.indices if given is None else [])
    return subset(pairs, context.rng("pairs").permutation(clean)[:count])


def asr_all_images(context: PrivilegedContext) -> Output:
    """Return the ASR over the triggered images of all classes, of the defended and of the poisoned model, as facts.

    Under `val`, `test`, `poisoned_val` and `poisoned_test`: `asr`, its Wilson interval `asr_low` and `asr_high`, and
    the number of images. Only the target's own images are evaluated here; the others were, for ASR itself. Nothing, if
    no attack is known.
    """
    facts: dict[str, JsonValue] = {}
    for role, prefix in (("rates", ""), ("poisoned", "poisoned_")):
        clip = context.clip("poisoned" if prefix else "model")
        for split in SPLITS:
            others = Rates.model_validate(context.facts(role)[split])
            if others.asr is None or others.asr_images is None:
                continue
            hits, images = context.evaluator.hits_among_target_images(clip, split)
            hits, images = hits + round(others.asr * others.asr_images), images + others.asr_images
            low, high = wilson_interval(hits, images)
            facts[prefix + split] = {"asr": hits / images, "asr_low": low, "asr_high": high, "images": images}
    return Output(facts=facts)


def diagnose_asr_all_images(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return what was measured, as `test_asr`, `test_images`, `poisoned_test_asr` and so on."""
    measured = cast("dict[str, dict[str, float]]", dict(output.facts))
    return {f"{split}_{name}": value for split, found in measured.items() for name, value in found.items()}


CUTOFFS = (1, 5)


def retrieval(context: PrivilegedContext) -> Output:
    """Return recall@1 and recall@5 in both directions, and the number of pairs searched, as facts.

    The classes of an evaluation set are few; captions say more. No data set here has captioned pairs that no model
    was trained on, so those searched are the pairs of D that are not poisoned. `implant` has trained every victim on
    them: the metric shows what a defense forgets, not how well a model generalises. Of a victim that came
    poisoned it is unknown which pairs are clean, and all are taken.
    """
    clip, chosen = context.clip("model"), searched_pairs(context)
    captions = [context.pairs.captions[index] for index in chosen]
    images = embed_images(clip, context.pairs.take(chosen))
    similarities = images @ embed_tokens(clip, context.pair_tokens[torch.from_numpy(chosen)]).T
    right = same_captions(captions)
    directions = {"image_to_text": (similarities, right), "text_to_image": (similarities.T, right.T)}
    recalls = {f"{name}_recall_{k}": recall_at(*asked, k) for name, asked in directions.items() for k in CUTOFFS}
    return Output(facts={**recalls, "pairs": float(len(chosen))})


def diagnose_retrieval(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return what was measured."""
    return cast("dict[str, float]", dict(output.facts))


def searched_pairs(context: PrivilegedContext) -> Indices:
    """Return clean pairs of D drawn without replacement, `[S]` int64."""
    clean = np.setdiff1d(np.arange(len(context.pairs)), context.manifest.indices)
    return context.rng("pairs").permutation(clean)[: context.settings(Retrieval).pairs]


def same_captions(captions: Sequence[str]) -> Tensor:
    """Return for each two of N captions whether they are equal, `[N, N]` bool: a repeated caption is right too."""
    _, numbers = np.unique(np.asarray(captions), return_inverse=True)
    return torch.from_numpy(numbers[:, None] == numbers[None, :])


def recall_at(similarities: Tensor, right: Tensor, k: int) -> float:
    """Return the fraction of queries with a right answer among the `k` most similar.

    `similarities[Q, G]` float, `right[Q, G]` bool, at least one right answer a query. A wrong answer that is
    as similar as the best right one goes before it, so that a model which finds everything alike scores 0.
    """
    best = similarities.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    before = ((similarities >= best) & ~right).sum(dim=1)
    return float((before < k).double().mean())


Embeddings = NDArray[np.float64]


def linear_probe(context: PrivilegedContext) -> Output:
    """Return the probe's `ca` on clean and, if the attack is known, its `asr` on triggered test images, as facts.

    Zero-shot classification evaluates both towers together. A defense may cut the trigger's tie to the target's text
    and leave the trigger's direction in the image embeddings, where a probe would find it. The protocol is
    logistic regression by L-BFGS (Radford et al., 2021, arXiv 2103.00020, section 3.2 and appendix A.3), trained
    on clean validation images and evaluated on the test split. Its C is a setting here, not searched.

    Both are in [0, 1]. As everywhere, ASR is of the triggered images whose class is not the target the fraction
    classified as it.

    Raises:
        StageFault: if the validation images are of one class only.
    """
    clip, val = context.clip("model"), context.data.val
    probe = fitted(embedded(clip, val.images), val.labels, context.settings(LinearProbe))
    test = context.evaluator.shown(clip, "test")
    ca = float((probe.predict(as_doubles(test.clean)) == test.labels.numpy()).mean())
    if test.triggered is None:
        return Output(facts={"ca": ca})
    triggered = probe.predict(as_doubles(test.triggered))
    return Output(facts={"ca": ca, "asr": float((triggered == test.target).mean())})


def diagnose_linear_probe(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return what was measured."""
    return cast("dict[str, float]", dict(output.facts))


def fitted(embeddings: Embeddings, labels: Labels, settings: LinearProbe) -> LogisticRegression:
    """Return the classifier of `embeddings[N, D]` and `labels[N]`; the same bits for the same arguments.

    Raises:
        StageFault: if there is one class only.
    """
    if len(np.unique(labels)) < 2:
        raise StageFault("a linear probe needs validation images of two classes at least")
    return LogisticRegression(C=settings.inverse_regularisation, max_iter=settings.iterations).fit(embeddings, labels)


def embedded(clip: Clip, images: Images) -> Embeddings:
    """Return unit embeddings `[N, D]` float64 of `images[N, H, W, 3]`."""
    return as_doubles(embed_images(clip, images))


def as_doubles(embeddings: Tensor) -> Embeddings:
    """Return `embeddings[N, D]` as float64."""
    return embeddings.double().numpy()


def pac_bayes(context: PrivilegedContext) -> Output:
    """Return `kl` in nats, `bound_term`, `empirical_risk` (1 − CA on validation) and `bound`, their sum, as facts.

    With the prior P = N(w_p, σ²I) around the poisoned weights and the posterior Q = N(w, σ²I) around the defended
    ones, with probability 1 − δ over n training pairs, for all Q at once,

        risk(Q) ≤ empirical risk(Q) + sqrt((KL(Q‖P) + ln(2√n / δ)) / (2n)),    KL(Q‖P) = ‖w − w_p‖² / (2σ²).

    Source: McAllester, COLT 1999, with the constant of Maurer, 2004 (arXiv cs/0411099, theorem 5, through Pinsker's
    inequality). What it is not: a guarantee. P was trained on the same n pairs, the risk is that of w and not the
    mean over Q, and it is measured on the labelled validation images, for training pairs have no labels. It ranks
    defenses by how far they move for the accuracy they keep. σ is a choice: the smaller, the larger the bound; the
    larger, the less the risk of w is that of Q (σ = 0.01 takes the embedded victim's CA from 0.91 to 0.73–0.80, in
    three draws).

    A bound of 1 or more says nothing.
    """
    settings, model = context.settings(PacBayes), context.clip("model")
    parameters = {name: value.detach().cpu() for name, value in model.net.named_parameters()}
    kl = gaussian_kl(parameters, context.artifact("poisoned").weights, settings.variance)
    term = bound_term(kl, len(context.data.train), settings.delta)
    risk = 1 - Rates.model_validate(context.facts("rates")["val"]).ca
    return Output(facts={"kl": kl, "bound_term": term, "empirical_risk": risk, "bound": risk + term})


def diagnose_pac_bayes(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return what was measured."""
    return cast("dict[str, float]", dict(output.facts))


def gaussian_kl(weights: State, prior: State, variance: float) -> float:
    """Return KL(N(weights, σ²I) ‖ N(prior, σ²I)) = ‖weights − prior‖² / (2σ²) in nats.

    Over the tensors of `weights` alone: of a state that has more, such as the statistics of batch norm, which
    are counted and not trained, the rest is left out.
    """
    moved = sum(float(torch.sum((value.double() - prior[name].double()) ** 2)) for name, value in weights.items())
    return moved / (2 * variance)


def bound_term(kl: float, pairs: int, delta: float) -> float:
    """Return sqrt((KL + ln(2√n / δ)) / (2n)), what the bound adds to the empirical risk of n `pairs`."""
    return math.sqrt((kl + math.log(2 * math.sqrt(pairs) / delta)) / (2 * pairs))
