"""Models, tokenizers, adapters, 4-bit weights and scalar heads, ready for packed training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AttentionInterface,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from posttrain.attention import NAME as PACKED
from posttrain.attention import packed_attention, set_attention
from posttrain.errors import MissingExtraError, ModelError, first_line
from posttrain.partitions import gathered
from posttrain.tokens import load_template, stop_ids

QUANTISATION = "quantization_config.json"


@dataclass(frozen=True)
class Adapter:
    """LoRA (Hu et al. 2021, arXiv:2106.09685) and 4-bit weights (QLoRA, arXiv:2305.14314).

    Attributes:
        target_modules: modules that get adapters; `all-linear` is every linear layer but the head.
        modules_to_save: modules that are trained whole, and kept with the adapters.
        rslora: W + alpha / sqrt(r) BA instead of W + alpha / r BA (Kalajdzievski 2023,
            arXiv:2312.03732, theorem 3.2).
        dora: m (W + alpha / r BA) / ||W + alpha / r BA||, a norm per output, with m trained as well
            (Liu et al. 2024, arXiv:2402.09353, equation 5).
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | Sequence[str] = "all-linear"
    modules_to_save: Sequence[str] = ()
    rslora: bool = False
    dora: bool = False
    load_in_4bit: bool = False
    quant_type: str = "nf4"
    nested_quant: bool = False


def check_checkpoint(path: str) -> None:
    """Look at a local checkpoint folder before anything is loaded. Hub ids pass.

    Raises:
        ModelError: no such folder, no config, no weights, a missing shard or a corrupt file.
    """
    folder = Path(path)
    if not folder.exists():
        if path.startswith((".", "/", "~")) or path.count("/") != 1:
            where = folder.expanduser().resolve()
            raise ModelError(f"model folder {path!r} does not exist (looked for {where})")
        return
    if not (folder / "config.json").is_file():
        raise ModelError(f"{path!r} has no config.json, so it is not a model folder")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            files = sorted(set(shards))
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ModelError(f"{index} is corrupt; download or copy it again") from None
    else:
        names = (p.name for p in folder.glob("*.safetensors"))
        files = sorted(name for name in names if not name.startswith("adapter"))
    if not files:
        raise ModelError(
            f"{path!r} holds no weights (*.safetensors): copy them there; "
            "pickled .bin checkpoints are not read, convert them first"
        )
    for name in files:
        try:
            with safe_open(folder / name, framework="pt") as tensors:
                tensors.keys()
        except FileNotFoundError:
            raise ModelError(
                f"{path!r}: {index.name} names {name}, which is missing; copy it there"
            ) from None
        except SafetensorError as error:
            raise ModelError(
                f"{folder / name} is corrupt ({error}); download or copy it again"
            ) from error


def load_tokenizer(
    path: str,
    *,
    chat_template: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedTokenizerBase:
    """A tokenizer with its chat template set: a shipped name, a .jinja file, or its own."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # a damaged tokenizer.json raises whatever its parser met
        folder = Path(path)
        why = first_line(error)
        if folder.is_dir() and any(folder.glob("tokenizer*")):
            why += "; copy its tokenizer files again"
        elif folder.is_dir():
            why = "it has no tokenizer.json; copy it there, or set tokenizer_name_or_path"
        raise ModelError(f"no tokenizer could be loaded from {path!r}: {why}") from error
    if chat_template is not None:
        tokenizer.chat_template = load_template(chat_template)
    return tokenizer


def load_config(path: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The model's configuration, or a clear refusal."""
    try:
        return AutoConfig.from_pretrained(
            path, revision=revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"no model configuration could be loaded from {path!r}: {first_line(error)}"
        ) from error


def load_model(
    path: str,
    *,
    head: str = "lm",
    dtype: torch.dtype = torch.float32,
    adapter: Adapter | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A checkpoint ready for packed training, with fresh adapters when asked for.

    Args:
        head: `lm` for a language model, `scalar` for one score per token (reward, value).
        dtype: type of the weights; quantised weights compute in it.

    Raises:
        ModelError: the checkpoint is missing, incomplete, corrupt or of an unsupported kind.
    """
    check_checkpoint(path)
    options: dict[str, Any] = {
        "dtype": dtype,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
    }
    if adapter and adapter.load_in_4bit:
        options |= four_bit(adapter, dtype)
    auto: Any = AutoModelForCausalLM
    if head == "scalar":
        config = load_config(path, revision, trust_remote_code)
        config.num_labels, config.classifier_dropout = 1, 0.0
        config.token_classification_bias = False
        auto, options = AutoModelForTokenClassification, options | {"config": config}
    try:
        model, found = auto.from_pretrained(
            path, attn_implementation="sdpa", output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the model {path!r} could not be loaded: {first_line(error)}") from error
    if missing := sorted(name for name in found["missing_keys"] if name.split(".")[0] != "score"):
        raise ModelError(
            f"the weights of {path!r} lack {len(missing)} tensors that its config.json promises "
            f"({', '.join(missing[:3])}, ...): they would be random; copy the whole checkpoint"
        )
    if head == "scalar":
        architectures = "".join(model.config.architectures or [])
        make_scalar(model, fresh="ForSequenceClassification" not in architectures)
    set_attention(model)
    if adapter:
        model = add_adapter(model, adapter, head)
    return model


def make_scalar(model: PreTrainedModel, fresh: bool = False) -> None:
    """A bias-free linear score per token; a fresh one has variance 1 / (hidden + 1) (Tülu 3)."""
    score = getattr(model, "score", None)
    if not isinstance(score, torch.nn.Linear):
        raise ModelError(
            f"{type(model).__name__} has no linear `score` head, so it cannot be a reward model"
        )
    score.register_parameter("bias", None)
    if fresh:
        hidden = model.config.get_text_config().hidden_size
        with gathered([score.weight], modifier_rank=0), torch.no_grad():
            if score.weight.numel():
                score.weight.normal_(0, (hidden + 1) ** -0.5)


def four_bit(adapter: Adapter, dtype: torch.dtype) -> dict[str, Any]:
    """`from_pretrained` options for 4-bit weights; needs bitsandbytes."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise MissingExtraError("bitsandbytes", "bitsandbytes", "load_in_4bit") from None
    from transformers import BitsAndBytesConfig

    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=adapter.quant_type,
        bnb_4bit_use_double_quant=adapter.nested_quant,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": quantisation}


def keep_trainable(model: PreTrainedModel) -> None:
    """Keep 4-bit weights as they are in evaluations on a CPU.

    There bitsandbytes otherwise packs them for a kernel in bfloat16, at the first forward pass
    without a gradient and for good. It has no backward pass: whatever is trained afterwards, say
    after a reference was computed, gets gradients that are wrong, with no more than a warning.
    """
    layers: Any = (m for m in model.modules() if hasattr(m, "support_avx512bf16_for_cpu"))
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False


def add_adapter(model: PreTrainedModel, adapter: Adapter, head: str = "lm") -> Any:
    """Wrap the model with LoRA adapters; a scalar head is trained whole beside them."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if adapter.load_in_4bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        keep_trainable(model)
    modules, saved = adapter.target_modules, list(adapter.modules_to_save)
    saved += ["score"] if head == "scalar" and "score" not in saved else []
    config = LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        bias="none",
        use_rslora=adapter.rslora,
        use_dora=adapter.dora,
        task_type="CAUSAL_LM" if head == "lm" else "TOKEN_CLS",
        modules_to_save=saved or None,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:  # no module has one of the names
        raise ModelError(f"adapters cannot be put on this model: {first_line(error)}") from error


def compile_layers(model: Any, backend: str) -> int:
    """Let torch.compile have every layer of a model, in place, and say how many there are.

    Layer by layer: they share their code, so one is compiled for all of them, weights keep their
    names, and the head stays as it is. So does attention, which depends on the parts of a pack: it
    would be compiled anew for every batch. Lengths are left open.

    Raises:
        ModelError: the model has none of transformers' layers.
    """
    layers = [
        module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)
    ]
    if not layers:
        raise ModelError(
            f"{type(model).__name__} has no layers of transformers' kind to compile; "
            "leave torch_compile out"
        )
    outside: Any = torch.compiler.disable
    AttentionInterface.register(PACKED, outside(packed_attention))
    for layer in layers:
        layer.compile(backend=backend, dynamic=True)
    return len(layers)


def resize_to(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give the tokenizer a pad token of its own and the model rows for every token (Tülu 3's rule).

    Padding is never trained here; a pad token that is not EOS keeps other tools from masking EOS.
    """
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    weight = next(model.get_input_embeddings().parameters())
    rows = getattr(weight, "ds_shape", weight.shape)[0]  # ZeRO-3 leaves an empty shape
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=8)
    model.config.pad_token_id = tokenizer.pad_token_id


def note_quantisation(model: Any, folder: Path) -> None:
    """Write beside an adapter how the weights under it were held; peft does not."""
    settings = getattr(model.config, "quantization_config", None)
    if settings is not None:
        text = json.dumps(settings.to_dict(), indent=2, default=str)
        (folder / QUANTISATION).write_text(text + "\n", encoding="utf-8")


def adapted_model(
    adapter_path: str,
    base_path: str,
    head: str = "lm",
    *,
    tokenizer: PreTrainedTokenizerBase,
    **options: Any,
) -> Any:
    """The base in full precision with a trained adapter on it.

    Raises:
        ModelError: base or adapter cannot be loaded, or the adapter is not one of this base.
    """
    from peft import PeftModel

    base = load_model(base_path, head=head, **options)
    resize_to(base, tokenizer)
    try:
        return PeftModel.from_pretrained(base, adapter_path)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"the adapter {adapter_path!r} does not go on {base_path!r}: {first_line(error)}"
        ) from error


def merge_adapter(adapter_path: str, base_path: str, head: str = "lm", **options: Any) -> Any:
    """`adapted_model` with the adapter folded in."""
    return adapted_model(adapter_path, base_path, head, **options).merge_and_unload()


def stop_where_trained(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let generation stop at the end of a turn too, where the template has a token for it."""
    stops = stop_ids(tokenizer) if tokenizer.chat_template else []
    if len(stops) > 1 and getattr(model, "generation_config", None) is not None:
        model.generation_config.eos_token_id = stops


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    state: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint that loads with `from_pretrained`, and stops where it was trained to."""
    stop_where_trained(model, tokenizer)
    model.save_pretrained(folder, state_dict=dict(state) if state is not None else None)
    tokenizer.save_pretrained(folder)
    name_scalar_head(folder)


def name_scalar_head(folder: Path) -> None:
    """Name the scalar head in config.json as others read it: once per sequence, not per token."""
    config = folder / "config.json"
    if config.is_file():
        text = config.read_text(encoding="utf-8")
        named = text.replace("ForTokenClassification", "ForSequenceClassification")
        config.write_text(named, encoding="utf-8")
