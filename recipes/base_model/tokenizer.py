"""The tokenizer: CLIP's byte-pair encoding with merges for the words of the captions.

Every word of the caption vocabulary becomes one token; other text is split into pieces and finally into
bytes, so that every prompt can be encoded.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

END_OF_WORD = "</w>"
SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges (Sennrich et al. 2016) under which each of `words` is one token."""
    trainer = trainers.BpeTrainer(
        vocab_size=100_000, min_frequency=1, end_of_word_suffix=END_OF_WORD, show_progress=False
    )
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(sorted(set(words)), trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in merges]


def build_vocabulary(merges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """All 256 bytes, inside a word and at its end, then one entry for each merge, then the two special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [letter + END_OF_WORD for letter in alphabet]
    tokens += [a + b for a, b in merges]
    tokens += SPECIAL
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


def write_tokenizer(words: Iterable[str], folder: Path) -> None:
    """Write vocab.json and merges.txt, the two files of every CLIP tokenizer."""
    merges = learn_merges(words)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(build_vocabulary(merges), ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in merges)]) + "\n")
