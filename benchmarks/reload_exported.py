"""Embed images and prompts with exported models, in a process that has open_clip alone.

    python benchmarks/reload_exported.py INPUTS.npz OUTPUT.npz SOURCE …

A source is the folder of an export; or FILE=NAME, a file that is loaded under open_clip's name; or FILE=NAME!, with
QuickGELU whatever the name says.
"""

import sys

import numpy as np
import open_clip
import torch
from PIL import Image


def load(source: str) -> tuple:
    """Return network, preprocessing and tokenizer."""
    file, _, name = source.partition("=")
    options = {"pretrained": file, "force_quick_gelu": name.endswith("!")} if name else {}
    name = name.removesuffix("!") or f"local-dir:{source}"
    network, _, preprocess = open_clip.create_model_and_transforms(name, **options)
    return network.eval().to(memory_format=torch.channels_last), preprocess, open_clip.get_tokenizer(name)


@torch.no_grad()
def main(given: str, found: str, *sources: str) -> None:
    """Write the embeddings of `images`, files, and `prompts` under each source, one after the other."""
    torch.set_num_threads(1)
    inputs, output = np.load(given), {}
    for place, source in enumerate(sources):
        network, preprocess, tokenizer = load(source)
        pixels = torch.stack([preprocess(Image.open(image)) for image in inputs["images"]])
        tokens = tokenizer([str(prompt) for prompt in inputs["prompts"]])
        output[f"{place}_images"] = network.encode_image(pixels, normalize=True).numpy()
        output[f"{place}_texts"] = network.encode_text(tokens, normalize=True).numpy()
    np.savez(found, **output)


if __name__ == "__main__":
    main(*sys.argv[1:])
