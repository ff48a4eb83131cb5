"""A program of somebody who has open_clip alone: load exported models, and say what they make of some images.

`python loads_exported.py INPUTS.npz OUTPUT.npz NOTE.json …`; nothing of this repository is imported.
"""

import json
import sys
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image


def load(note_file: Path):
    """Return the network, its preprocessing and its tokenizer, by what the note says."""
    note = json.loads(note_file.read_text())
    weights = note_file.parent / note["weights"]
    if note_file.name == "ubt_export.json":
        name, options = f"local-dir:{note_file.parent}", {}
    else:
        architecture = note_file.with_name(f"exported-{note_file.name}")
        architecture.write_text(json.dumps(note["architecture"]))
        open_clip.add_model_config(architecture)
        name, options = architecture.stem, {"pretrained": str(weights)}
    net, _, preprocess = open_clip.create_model_and_transforms(name, **options)
    return net.eval().to(memory_format=torch.channels_last), preprocess, open_clip.get_tokenizer(name)


@torch.no_grad()
def main(inputs: str, output: str, *notes: str) -> None:
    torch.set_num_threads(1)
    given, found = np.load(inputs), {}
    for place, note in enumerate(notes):
        net, preprocess, tokenizer = load(Path(note))
        texts = net.encode_text(tokenizer([str(prompt) for prompt in given["prompts"]]), normalize=True)
        found[f"{place}_texts"] = texts.numpy()
        for kind in ("clean", "triggered"):
            pixels = torch.stack([preprocess(Image.fromarray(image)) for image in given[kind]])
            found[f"{place}_{kind}"] = net.encode_image(pixels, normalize=True).numpy()
    np.savez(output, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
