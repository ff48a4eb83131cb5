"""A folder with a model whose text tower and tokenizer are of the package `transformers`, made without a hub."""

import json

import pytest
import torch

from ubt.models.build import build_clip
from ubt.models.settings import ModelSettings

VISION = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}


def write_hugging_face_folder(folder, **text):
    """Write a folder with a small BERT as the text tower, and its tokenizer beside."""
    transformers = pytest.importorskip("transformers", reason="pip install 'ubt-sweeper[transformers]'")
    import tokenizers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "of", "banana", "boat", "red"]
    model = tokenizers.models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=32,
        max_position_embeddings=16,
        pad_token_id=0,
    ).save_pretrained(folder)
    text = {"hf_model_name": "not/there", "hf_tokenizer_name": "not/there", "context_length": 16, **text}
    config = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": {**text, "hf_proj_type": "linear"}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    net = build_clip(ModelSettings(name=f"local-dir:{folder}", random_weights=True), 0, torch.device("cpu")).net
    torch.save(net.state_dict(), folder / "open_clip_pytorch_model.bin")
    return net
