"""Checkpoints of every kind load or are refused with the reason; adapters, 4-bit, scalar heads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from posttrain.errors import ModelError
from posttrain.models import (
    Adapter,
    check_checkpoint,
    load_model,
    load_tokenizer,
    merge_adapter,
    resize_to,
    save_model,
)
from posttrain.packing import Group, forward_inputs, pack

IDS = [10, 11, 12, 13, 14]


def logits(model: Any) -> torch.Tensor:
    """`[5, V]` of IDS, through packed attention."""
    batch = pack([Group([], [(IDS, IDS)])])
    return model(**forward_inputs(batch), use_cache=False).logits[0].float()


def nll(model: Any) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits(model)[:-1], torch.tensor(IDS[1:]))


@pytest.fixture
def copied(checkpoint: Callable[..., str], tmp_path: Path) -> Path:
    """A checkpoint that a test may spoil."""
    return Path(shutil.copytree(checkpoint(), tmp_path / "copy"))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["llama", "mistral"])
@pytest.mark.parametrize("sharded", [False, True])
def test_checkpoints_load_whole(
    kind: str, tied: bool, sharded: bool, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    folder = Path(checkpoint(kind, tie_word_embeddings=tied))
    plain = AutoModelForCausalLM.from_pretrained(folder)
    if sharded:
        plain.save_pretrained(tmp_path, max_shard_size="30KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
        folder = tmp_path
    model = load_model(str(folder))
    with torch.no_grad():
        expected = plain(torch.tensor([IDS])).logits[0]
        torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    same = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert same is tied


@pytest.mark.parametrize("tied", [False, True])
def test_a_trained_model_is_saved_with_its_ties(
    tied: bool, checkpoint: Callable[..., str], tokenizer: Any, tmp_path: Path
) -> None:
    model = load_model(checkpoint(tie_word_embeddings=tied))
    nll(model).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
        expected = logits(model)
    save_model(model, tokenizer, tmp_path / "out")
    assert ("lm_head.weight" in load_file(tmp_path / "out" / "model.safetensors")) is not tied
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        again = loaded(torch.tensor([IDS])).logits[0]
    torch.testing.assert_close(again, expected, rtol=1e-5, atol=1e-5)
    kept = load_tokenizer(str(tmp_path / "out"))
    assert kept.chat_template == tokenizer.chat_template


# --- what is refused ------------------------------------------------------------------------------


def test_missing_things(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_model(str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match=r"could not be loaded|no model configuration"):
        load_model("nobody/no-such-model")
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"holds no weights.*pickled .bin checkpoints are not read"
    ):
        load_model(str(copied))
    (copied / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config.json, so it is not a model folder"):
        load_model(str(copied))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no tokenizer could be loaded"):
        load_tokenizer(str(tmp_path / "empty"))


def test_corrupt_files(copied: Path) -> None:
    weights = copied / "model.safetensors"
    whole = weights.read_bytes()
    for spoilt in (whole[:-100], b"", b"not safetensors at all", whole[:4]):
        weights.write_bytes(spoilt)
        with pytest.raises(ModelError, match=r"model.safetensors is corrupt .*copy it again"):
            check_checkpoint(str(copied))
    weights.write_bytes(whole)
    (copied / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="could not be loaded"):
        load_model(str(copied))


def test_shards(copied: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(copied).save_pretrained(folder, max_shard_size="30KB")
    shard = sorted(folder.glob("*.safetensors"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-8])
    with pytest.raises(ModelError, match=f"{shard.name} is corrupt"):
        load_model(str(folder))
    shard.unlink()
    with pytest.raises(ModelError, match=rf"index.json names {shard.name}, which is missing"):
        load_model(str(folder))
    for text in ("{", "{}", "[]"):
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
        with pytest.raises(ModelError, match=r"index.json is corrupt"):
            load_model(str(folder))


def test_weights_that_are_not_there_are_not_made_up(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors .*model.layers.1.mlp.up_proj"):
        load_model(str(copied))


def test_weights_of_another_shape(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    (copied / "config.json").write_text(
        json.dumps({**config, "intermediate_size": 48}), encoding="utf-8"
    )
    with pytest.raises(ModelError, match="could not be loaded"):
        load_model(str(copied))


# --- adapters -------------------------------------------------------------------------------------


def test_lora_trains_adapters_and_merges_into_the_same_model(
    checkpoint: Callable[..., str], tokenizer: Any, tmp_path: Path
) -> None:
    base = checkpoint()
    model = load_model(base, adapter=Adapter(r=4, alpha=8))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 2 * 7  # A and B of seven linear layers in two blocks, not the head
    assert all("lora_" in name for name in trained)
    with torch.no_grad():
        torch.testing.assert_close(logits(model), logits(load_model(base)))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(name)))
        expected = logits(model)
        assert (expected - logits(load_model(base))).abs().max() > 0.1
    model.save_pretrained(tmp_path / "adapter")
    merged = merge_adapter(str(tmp_path / "adapter"), base, tokenizer=tokenizer)
    save_model(merged, tokenizer, tmp_path / "merged")
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        again = alone(torch.tensor([IDS])).logits[0]
    torch.testing.assert_close(again, expected, rtol=1e-5, atol=1e-5)


def test_four_bit_weights_take_a_training_step(checkpoint: Callable[..., str]) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    # 4-bit blocks are of 64 values: a wider model than elsewhere
    folder = checkpoint(hidden_size=64, intermediate_size=128)
    adapter = Adapter(r=4, load_in_4bit=True, nested_quant=True)
    model = load_model(folder, adapter=adapter)
    four_bit = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(four_bit) == 14
    with torch.no_grad():
        gap = (logits(model) - logits(load_model(folder))).abs().mean()
    assert 0 < gap < 1.0
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = nll(model)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("nested", [True, False])
def test_four_bit_gradients_are_those_of_the_rounded_weights(
    nested: bool, checkpoint: Callable[..., str]
) -> None:
    """Also after an evaluation: on some CPUs bitsandbytes would pack the weights for good then."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    folder = checkpoint(hidden_size=64, intermediate_size=128)
    model = load_model(folder, adapter=Adapter(r=4, load_in_4bit=True, nested_quant=nested))
    plain = load_model(folder, adapter=Adapter(r=4))
    coarse = dict(model.named_modules())
    for name, module in plain.named_modules():
        if isinstance(four := coarse[name], bitsandbytes.nn.Linear4bit):
            rounded = bitsandbytes.functional.dequantize_4bit(four.weight, four.weight.quant_state)
            module.weight.data = rounded.to(module.weight)
    for (name, one), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        if "lora_" in name:
            one.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
            other.data.copy_(one.data)
    expected = gradients(plain)
    for _ in range(2):
        found = gradients(model)
        assert found.keys() == expected.keys() and len(found) == 28
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
        model.eval()
        logits(model)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.train()
    model.zero_grad()
    nll(model).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def weights_after(base: str, adapter: Adapter) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """A layer with drawn adapter weights, its effective weight, and B @ A."""
    model = load_model(base, adapter=adapter)
    layer = model.get_submodule("base_model.model.model.layers.0.mlp.up_proj")
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
        unit = torch.eye(layer.in_features)
        return (
            layer,
            layer(unit).T - (0 if layer.bias is None else layer.bias[:, None]),
            layer.lora_B["default"].weight @ layer.lora_A["default"].weight,
        )


def test_rank_stabilised_lora_divides_by_the_root_of_the_rank(
    checkpoint: Callable[..., str],
) -> None:
    for rslora, scale in ((False, 8 / 16), (True, 8 / 4)):
        layer, now, product = weights_after(checkpoint(), Adapter(r=16, alpha=8, rslora=rslora))
        torch.testing.assert_close(
            now, layer.base_layer.weight + scale * product, rtol=1e-5, atol=1e-5
        )


def test_dora_keeps_the_norm_of_every_row(checkpoint: Callable[..., str]) -> None:
    layer, now, product = weights_after(checkpoint(), Adapter(r=4, alpha=8, dora=True))
    weight = layer.base_layer.weight
    direction = weight + 2 * product
    magnitude = layer.lora_magnitude_vector["default"].weight
    assert magnitude.requires_grad
    torch.testing.assert_close(magnitude, weight.norm(dim=1), rtol=1e-5, atol=1e-6)
    expected = magnitude[:, None] * direction / direction.norm(dim=1, keepdim=True)
    torch.testing.assert_close(now, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "adapter",
    [
        Adapter(r=4, rslora=True),
        Adapter(r=4, dora=True),
        Adapter(r=4, modules_to_save=["lm_head"]),
        Adapter(r=4, target_modules=["q_proj", "v_proj"]),
    ],
    ids=["rslora", "dora", "modules_to_save", "target_modules"],
)
def test_every_kind_of_adapter_merges_into_the_same_model(
    adapter: Adapter, checkpoint: Callable[..., str], tokenizer: Any, tmp_path: Path
) -> None:
    base = checkpoint(tie_word_embeddings=False)
    model = load_model(base, adapter=adapter)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert ("lm_head" in " ".join(trained)) == bool(adapter.modules_to_save)
    assert not [name for name in trained if name.endswith("bias")]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        nll(model).backward()
        optimizer.step()
    with torch.no_grad():
        expected = logits(model)
        assert (expected - logits(load_model(base))).abs().max() > 0.1
    model.save_pretrained(tmp_path / "adapter")
    merged = merge_adapter(str(tmp_path / "adapter"), base, tokenizer=tokenizer)
    with torch.no_grad():
        torch.testing.assert_close(logits(merged), expected, rtol=1e-5, atol=1e-5)


def test_an_adapter_for_modules_that_are_not_there(checkpoint: Callable[..., str]) -> None:
    with pytest.raises(ModelError, match=r"adapters cannot be put on this model.*q_projection"):
        load_model(checkpoint(), adapter=Adapter(target_modules=["q_projection"]))


# --- heads and embeddings -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_a_scalar_head_is_saved_as_a_sequence_classifier(
    kind: str, checkpoint: Callable[..., str], tokenizer: Any, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    model = load_model(checkpoint(kind), head="scalar")
    resize_to(model, tokenizer)
    assert model.score.bias is None
    with torch.no_grad():
        scores = logits(model)[:, 0]
    save_model(model, tokenizer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert "ForSequenceClassification" in config["architectures"][0]
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    for length in (3, 5):
        with torch.no_grad():
            score = loaded(torch.tensor([IDS[:length]])).logits
        torch.testing.assert_close(score[0, 0], scores[length - 1], rtol=1e-5, atol=1e-6)
    again = load_model(str(tmp_path), head="scalar")  # the trained head, not a fresh one
    assert torch.equal(again.score.weight, model.score.weight)


def test_a_missing_pad_token_is_added_and_eos_stays_its_own(
    checkpoint: Callable[..., str],
) -> None:
    model, tokenizer = load_model(checkpoint()), load_tokenizer(checkpoint())
    tokenizer.pad_token = None
    tokenizer.add_tokens([f"<new{i}>" for i in range(320 - len(tokenizer))])
    before = logits(model).detach()
    resize_to(model, tokenizer)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    rows = model.get_input_embeddings().weight.shape[0]
    assert rows % 8 == 0
    assert rows >= len(tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id
    torch.testing.assert_close(logits(model)[:, :320].detach(), before)


def test_spare_embedding_rows_are_kept(checkpoint: Callable[..., str]) -> None:
    model, tokenizer = load_model(checkpoint()), load_tokenizer(checkpoint())
    assert len(tokenizer) < 320
    resize_to(model, tokenizer)
    assert model.get_input_embeddings().weight.shape[0] == 320


def test_a_chat_template_by_name_replaces_the_tokenizers_own(
    checkpoint: Callable[..., str],
) -> None:
    assert "<|im_start|>" in load_tokenizer(checkpoint(), chat_template="chatml").chat_template
    assert "<|assistant|>" in load_tokenizer(checkpoint()).chat_template
