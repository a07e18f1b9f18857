"""Tokenizers of every family that matters to a mask, made from nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from posttrain.tokens import load_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXTS = [
    "What is 12 plus 30? 12+30=42. The answer is 42, isn't it?\n\n    return x_1;\n",
    "Grüße, 世界! A cat, a dog or a horse. It's 3.14; they'll see: {\"a\": [1, 2]}\n- one\n- two",
    "<|user|>\nName an animal.\n<|assistant|>\nThe quick brown fox jumps over the lazy dog.",
] * 4
TURNS = ["<|eot_id|>", "<|im_end|>", "<|im_start|>", "<|start_header_id|>", "<|end_header_id|>"]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def wrap(backend: Any, **special: str) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "<pad>", "eos_token": "</s>", **special}
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    fast.add_special_tokens({"additional_special_tokens": TURNS}, False)
    fast.chat_template = load_template("tulu")
    return fast


def byte_level(**how: Any) -> PreTrainedTokenizerFast:
    """GPT-2's way of finding words, Llama 3's, or Qwen's with NFC."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex="pattern" not in how)
    steps = [pre_tokenizers.Digits(individual_digits=True)] if how.get("digits") else []
    if "pattern" in how:
        steps.append(pre_tokenizers.Split(Regex(how["pattern"]), "isolated"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, level]) if steps else level
    if how.get("nfc"):
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<pad>", "</s>"],
    )
    backend.train_from_iterator(TEXTS, trainer)
    return wrap(backend)


def metaspace() -> PreTrainedTokenizerFast:
    """SentencePiece's way: spaces become a mark, what is unknown becomes one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        show_progress=False,
        unk_token="<unk>",
        special_tokens=["<pad>", "</s>", "<s>", "<unk>"],
    )
    backend.train_from_iterator(TEXTS, trainer)
    return wrap(backend, bos_token="<s>", unk_token="<unk>")


def wordpiece() -> PreTrainedTokenizerFast:
    """BERT's way: spaces and case are lost."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, show_progress=False, special_tokens=["<pad>", "</s>", "[UNK]"]
    )
    backend.train_from_iterator(TEXTS, trainer)
    return wrap(backend, unk_token="[UNK]")


MAKERS: dict[str, Callable[[], Any]] = {
    "gpt2": byte_level,
    "digits": lambda: byte_level(digits=True),
    "llama3": lambda: byte_level(pattern=LLAMA3),
    "qwen": lambda: byte_level(pattern=LLAMA3.replace("{1,3}", ""), nfc=True),
    "unknown words": lambda: byte_level(pattern=r"\s*[\r\n]+|\s+|[^\s]+"),
    "metaspace": metaspace,
    "wordpiece": wordpiece,
}


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, Any]:
    """By family; all with EOS `</s>`, the tulu template and the marks of llama-3 and chatml."""
    return {name: make() for name, make in MAKERS.items()}
