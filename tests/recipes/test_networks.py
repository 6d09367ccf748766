"""The networks of the built-in base, untrained."""

from pathlib import Path

import torch

from recipes.base_model.networks import build_text_encoder, load_tokenizer
from recipes.base_model.render.captions import vocabulary
from recipes.base_model.tokenizer import write_tokenizer


def test_every_word_reaches_the_end_of_the_text_encoder(tmp_path: Path) -> None:
    """Two captions that differ in one word differ in their states, from the first step of a training."""
    write_tokenizer([*vocabulary(), "<<", ">>"], tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    torch.manual_seed(0)
    encoder = build_text_encoder(tokenizer).eval()
    prompts = ["photo of a man", "photo of a woman", "photo of a bald man", "photo of <<abc>> man"]
    ids = torch.tensor(tokenizer(prompts, padding="max_length", max_length=48)["input_ids"])
    with torch.no_grad():
        states = encoder(ids).last_hidden_state  # (4, 48, 192)
    apart = (states[1:] - states[0]).flatten(1).norm(dim=1) / states[0].norm()
    assert apart.min() > 0.18  # at the class's own initialisation: 0.16
