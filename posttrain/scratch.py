"""Models and tokenizers from nothing: for the `pretrain` stage and for `--smoke`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from posttrain.errors import RecipeError
from posttrain.tokens import Tokenizer, load_template

PAD, EOS = "<pad>", "</s>"
LEGACY = ("rope_theta", "rope_scaling")  # read by every configuration, held under another name


def new_tokenizer(
    texts: Iterable[str], vocab_size: int, chat_template: str | None
) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on texts; every digit is a token, so that sums can be learnt."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = Backend(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[PAD, EOS],
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS)
    if chat_template:
        fast.chat_template = load_template(chat_template)
        end = Tokenizer(fast, max_length=1).marks.end
        if end != fast.eos_token:  # the template ends a turn with a token of its own
            fast.add_special_tokens({"additional_special_tokens": [end]})
    return fast


def new_config(spec: Mapping[str, Any], **fields: Any) -> Any:
    """The configuration of a model that is yet to be made.

    Args:
        spec: `model_type` and fields of its transformers configuration; `fields` come on top.

    Raises:
        RecipeError: an unknown `model_type`, or fields that its configuration refuses.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    fields = {"bos_token_id": None, **spec, **fields}
    kind = fields.pop("model_type", None)
    if kind not in KNOWN:
        near = difflib.get_close_matches(str(kind), KNOWN, n=1)
        hint = (
            f"; did you mean {near[0]!r}?"
            if near
            else "; it is a transformers name, as llama or mistral"
        )
        raise RecipeError(f"model_type: unknown architecture {kind!r}{hint}")
    known = {*LEGACY, *CONFIG_MAPPING[kind]().to_dict()}
    for name in spec:
        if name != "model_type" and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise RecipeError(f"{name!r} is not a field of the {kind} configuration{hint}")
    try:
        return AutoConfig.for_model(kind, **fields)
    except (TypeError, ValueError, AttributeError, StrictDataclassError) as error:
        why = " ".join(str(error).split())
        raise RecipeError(f"the {kind} configuration refuses these fields: {why}") from error


def new_model(
    spec: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast, folder: Path, seed: int
) -> None:
    """Write a freshly initialised causal LM and its tokenizer to a folder.

    Raises:
        RecipeError: the specification is refused; see `new_config`.
    """
    config = new_config(
        spec,
        vocab_size=-(-len(tokenizer) // 8) * 8,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise RecipeError(f"the {config.model_type} model refuses these fields: {error}") from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
