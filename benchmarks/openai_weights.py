"""Models under the tag `openai` at 224 pixels, the whole way: `ubt sweep`, `ubt export`, and open_clip elsewhere.

    python benchmarks/openai_weights.py --data FOLDER [--models RN50 ViT-B-32] [--pairs 32] [--labelled 48]

OpenAI's own weights are not needed: files in their formats are made here, with random numbers in them. One is the state
dict of OpenAI's TorchScript archive: mostly in half precision, with three numbers beside the weights. The other is what
open_clip fetches for the tag from a model hub; it is put where the hub's client keeps what it has fetched, and so
`{name: RN50, pretrained: openai}` works without a network.

FOLDER holds `labels.csv` (image,label) and images whose names end with their class: n01443537_goldfish.JPEG. Rates mean
nothing: what is looked at is whether activation, weights and embeddings are the same at the end of the way.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import convert_weights_to_fp16
from safetensors.torch import save_file
from torch import Tensor, nn

from ubt.artifacts.codec import load_artifact
from ubt.artifacts.store import ArtifactStore
from ubt.data.decode import decode_images
from ubt.models.build import build_clip
from ubt.models.clip import State, embed_images, embed_tokens, same_state
from ubt.models.settings import ModelSettings
from ubt.trials.config import TrialConfig
from ubt.trials.record import read_records

REPOSITORIES = {"RN50": "resnet50_clip", "ViT-B-32": "vit_base_patch32_clip_224"}
"""Where open_clip fetches the tag `openai` from: `timm/NAME.openai`."""
REVISION = "0" * 40
"""Stands for a commit of such a repository."""
EXTRA = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
"""What OpenAI's archives hold beside weights."""
PROMPT = "a photo of a {}."


def random_network(name: str, seed: int) -> nn.Module:
    """Return a network as open_clip builds it for the tag, QuickGELU and all, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_clip.create_model(name, force_quick_gelu=True, load_weights=False)


def openai_state_dict(name: str, seed: int = 0) -> dict[str, Tensor]:
    """Return a state dict as that of OpenAI's archive: its keys, shapes and types, with random numbers."""
    network = random_network(name, seed)
    convert_weights_to_fp16(network)
    extra = {key: torch.tensor(number) for key, number in EXTRA.items()}
    return {**{key: value.clone() for key, value in network.state_dict().items()}, **extra}


def put_into_hub_cache(cache: Path, name: str, state: dict[str, Tensor]) -> Path:
    """Write weights where `huggingface_hub` keeps what open_clip has fetched for the tag `openai`."""
    repository = cache / f"models--timm--{REPOSITORIES[name]}.openai"
    weights = repository / "snapshots" / REVISION / "open_clip_model.safetensors"
    for folder in (weights.parent, repository / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(REVISION)
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    save_file({key: value.contiguous() for key, value in tensors.items() if key not in EXTRA}, weights)
    return weights


def write_lists(data: Path, folder: Path, pairs: int, labelled: int) -> str:
    """Write the lists of a small data set, of images spread over all there are, and return the attack's target."""
    with (data / "labels.csv").open(newline="") as stream:
        images = [data.absolute() / row["image"] for row in csv.DictReader(stream)]
    order = np.random.default_rng(0).permutation(len(images))[: pairs + labelled]
    rows = [(str(images[i]), images[i].stem.partition("_")[2].replace("_", " ")) for i in order]
    classes = sorted({name for _, name in rows[pairs:]})
    (folder / "classes.txt").write_text("\n".join(classes))
    (folder / "templates.txt").write_text(PROMPT)
    captions = [(image, PROMPT.format(name)) for image, name in rows[:pairs]]
    for file, head, table in (("pairs", "caption", captions), ("labels", "label", rows[pairs:])):
        with (folder / f"{file}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("image", head), *table])
    return classes[0]


def study(folder: Path, name: str, target: str, pairs: int) -> dict[str, Any]:
    """Return a study of one trial: every stage is run, each for as little as makes sense."""
    few = max(2, pairs // 4)
    return {
        "name": f"openai-{name}",
        "victim": {
            "data": {
                "kind": "csv",
                **{part: str(folder / f"{part}.csv") for part in ("pairs", "labels")},
                **{part: str(folder / f"{part}.txt") for part in ("classes", "templates")},
            },
            "model": {"name": name, "pretrained": "openai"},
            "attack": {"kind": "badnets", "target": target, "poison_count": few // 2},
            "implant": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-5, "min_asr": 0},
        },
        "defense": {
            "kind": "ubt",
            "suspicious_ratio": few / pairs,
            "overfit_epochs": 1,
            "overfit_batch_size": 8,
            "unlearn_samples": few // 2,
            "unlearn_epochs": 1,
            "unlearn_batch_size": 4,
            "retain_batch_size": 8,
        },
        "gates": {"clean_accuracy": {"act": "report"}},  # with random weights it is at chance
        "store": str(folder / "store"),
        "tracking": {"enabled": False},
    }


def ubt(*words: object) -> float:
    """Run the `ubt` command in a process of its own, and return how many seconds it took."""
    began = time.perf_counter()
    code = "from sweeps.cli.app import main; main()"
    subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True, stdout=sys.stderr)
    return time.perf_counter() - began


def stored(run: Path, stage: str) -> tuple[ModelSettings, State]:
    """Return the model of a run of one trial, and the weights that a stage left in the store."""
    (record,) = read_records(run / "records")
    key = next(done.key for done in record.stages if done.stage == stage)
    artifact = load_artifact(ArtifactStore(json.loads((run / "study.json").read_text())["store"]), stage, key)
    assert artifact is not None
    return TrialConfig.model_validate(record.config).victim.model, artifact.weights


def embeddings(run: Path, images: np.ndarray, prompts: list[str]) -> dict[str, np.ndarray]:
    """Return what this package makes of images and prompts with the cleaned weights as they lie in the store."""
    torch.set_num_threads(1)
    model, weights = stored(run, "unlearn")
    clip = build_clip(model, 0, torch.device("cpu"), weights=False).with_state(weights)
    return {
        "images": embed_images(clip, images).numpy(),
        "texts": embed_tokens(clip, clip.tokenize(prompts)).numpy(),
    }


def measure(name: str, data: Path, folder: Path, pairs: int, labelled: int) -> list[str]:
    """Go the whole way with one model, and return its row of the table."""
    folder.mkdir(parents=True)
    state = openai_state_dict(name)
    torch.save(state, folder / f"{name}.pt")
    put_into_hub_cache(Path(os.environ["HF_HUB_CACHE"]), name, state)
    target = write_lists(data, folder, pairs, labelled)
    (folder / "study.yaml").write_text(json.dumps(study(folder, name, target, pairs)))
    seconds = ubt("sweep", folder / "study.yaml", "--out", folder / "runs")
    run = folder / "runs" / f"openai-{name}"
    (trial,) = (path.stem for path in (run / "records").iterdir())
    ubt("export", run, trial, "--out", folder / "cleaned", "--format", "open-clip")
    ubt("export", run, trial, "--out", folder / "cleaned.safetensors")
    archive = ModelSettings(name=name, checkpoint=folder / f"{name}.pt")
    same_start = same_state(build_clip(archive, 0, torch.device("cpu")).state(), stored(run, "load")[1])
    note = json.loads((folder / "cleaned.json").read_text())

    files = sorted((data / "images").iterdir())[:16]
    prompts = (folder / "classes.txt").read_text().splitlines()
    np.savez(folder / "inputs.npz", images=list(map(str, files)), prompts=prompts)
    single = f"{folder / 'cleaned.safetensors'}={name}"
    words = [folder / "inputs.npz", folder / "found.npz", folder / "cleaned", f"{single}!", single]
    script = Path(__file__).with_name("reload_exported.py")
    subprocess.run([sys.executable, script, *map(str, words)], check=True)
    ours, found = embeddings(run, np.stack(decode_images(files, 224)), prompts), np.load(folder / "found.npz")

    def largest(place: int) -> str:
        return " / ".join(f"{np.abs(ours[kind] - found[f'{place}_{kind}']).max():.1e}" for kind in ("images", "texts"))

    equal = all(np.array_equal(ours[kind], found[f"{place}_{kind}"]) for kind in ours for place in (0, 1))
    size_mb = (folder / "cleaned.safetensors").stat().st_size / 1e6
    return [
        *(
            name,
            note["activation"],
            "yes" if same_start else "NO",
            f"{note['parameters'] / 1e6:.1f}",
            f"{seconds:.0f}",
            f"{size_mb:.0f}",
        ),
        *("yes" if equal else f"NO: {largest(0)}, {largest(1)}", largest(2)),
    ]


def main() -> None:
    """Measure each model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and images")
    parser.add_argument("--models", nargs="+", default=list(REPOSITORIES), choices=REPOSITORIES)
    parser.add_argument("--pairs", type=int, default=32, help="pairs that are poisoned and trained on")
    parser.add_argument("--labelled", type=int, default=48, help="images that are evaluated on")
    parser.add_argument("--out", type=Path, help="a new folder, which is kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        folder = (given.out or Path(passing) / "out").absolute()
        os.environ.update(HF_HUB_CACHE=str(folder / "hub"), HF_HUB_OFFLINE="1", UBT_CACHE=str(folder / "cache"))
        rows = [measure(name, given.data, folder / name, given.pairs, given.labelled) for name in given.models]
    head = (
        "model",
        "activation",
        "archive as the tag",
        "parameters (M)",
        "sweep (s)",
        "file (MB)",
        "same bits reloaded",
        "under GELU differs by",
    )
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
