"""Exported models stand alone and answer as what they were made from; others are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

from posttrain.errors import ModelError, RunError
from posttrain.models import Adapter, load_model, load_tokenizer, note_quantisation
from posttrain.pipeline import export as exporting
from posttrain.pipeline.export import export_model, gap

IDS = torch.tensor([[10, 11, 12, 13, 14]])


def trained_adapter(folder: Path, base: str, head: str = "lm", **options: Any) -> Any:
    """An adapter that moves its base, in `folder`; the model that it was trained in."""
    model = load_model(base, head=head, adapter=Adapter(r=4, **options))
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter += 0.05 * torch.randn(parameter.shape, generator=draw)
    model.save_pretrained(folder)
    note_quantisation(model, folder)
    load_tokenizer(base).save_pretrained(folder)
    return model


@torch.no_grad()
def answers(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits[0].float()


@pytest.mark.parametrize("options", [{}, {"dora": True}, {"modules_to_save": ["lm_head"]}])
def test_an_adapter_is_folded_in(
    options: dict[str, Any], checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    base = checkpoint()
    trained_adapter(tmp_path / "adapter", base, **options)
    gaps = export_model(str(tmp_path / "adapter"), tmp_path / "out", merge=True)
    assert gaps["adapter"] > 0.1 and gaps["merge"] < 1e-4 and gaps["write"] < 1e-4
    from peft import PeftModel

    plain = AutoModelForCausalLM.from_pretrained(base)
    expected = answers(PeftModel.from_pretrained(plain, tmp_path / "adapter"))
    alone, found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(found[key] for key in ("missing_keys", "unexpected_keys"))
    torch.testing.assert_close(answers(alone), expected, rtol=1e-5, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == load_tokenizer(base).chat_template
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id is not None
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_a_stages_folder_with_and_without_merging(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    """`--merge` folds its adapter in again; without it the stage's own `model/` is copied."""
    base, stage = checkpoint(), tmp_path / "1-sft"
    trained_adapter(stage / "adapter", base)
    export_model(str(stage / "adapter"), stage / "model", merge=True)
    assert "merge" in export_model(str(stage), tmp_path / "merged", merge=True)
    assert "merge" not in export_model(str(stage), tmp_path / "copied", merge=False)
    first, second = (load_file(tmp_path / n / "model.safetensors") for n in ("merged", "copied"))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_written_in_another_type(
    checkpoint: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gaps = export_model(checkpoint(), tmp_path / "out", merge=False, dtype="bfloat16")
    assert 1e-4 < gaps["write"] < 0.25
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert "written as torch.bfloat16: logits differ by" in capsys.readouterr().err


def test_an_adapter_of_four_bits_goes_into_full_precision(
    checkpoint: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bitsandbytes")
    base = checkpoint(hidden_size=64, intermediate_size=128)
    model = trained_adapter(tmp_path / "adapter", base, load_in_4bit=True, nested_quant=True)
    gaps = export_model(str(tmp_path / "adapter"), tmp_path / "out", merge=True)
    assert "trained on weights in 4 bits" in capsys.readouterr().err
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert getattr(alone.config, "quantization_config", None) is None
    whole = load_model(str(tmp_path / "out"))
    probe = [IDS[0].tolist()]
    apart = gap(exporting.logits(whole, probe), exporting.logits(model, probe))  # what 4 bits cost
    assert gaps["merge"] < 1e-4 < apart < gaps["adapter"]


def test_a_reward_models_head_comes_along(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    trained_adapter(tmp_path / "adapter", checkpoint(), head="scalar")
    export_model(str(tmp_path / "adapter"), tmp_path / "out", merge=True)
    alone, found = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(found[key] for key in ("missing_keys", "unexpected_keys"))
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    (head,) = [value for name, value in saved.items() if name.endswith("score.weight")]
    assert torch.equal(alone.score.weight, head)
    export_model(str(tmp_path / "out"), tmp_path / "again", merge=False)  # and as a whole model


def test_what_is_refused(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    base, adapter, out = checkpoint(), tmp_path / "adapter", tmp_path / "out"
    trained_adapter(adapter, base)
    with pytest.raises(ModelError, match=r"holds an adapter.*add --merge"):
        export_model(str(adapter), out, merge=False)
    with pytest.raises(ModelError, match="allowed are float32"):
        export_model(str(adapter), out, merge=True, dtype="int8")
    with pytest.raises(ModelError, match=r"nowhere.*does not exist"):
        export_model(str(adapter), out, merge=True, base=str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="does not go on"):
        wider = checkpoint(hidden_size=64, intermediate_size=128)
        export_model(str(adapter), out, merge=True, base=wider)
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]  # nothing is left of the attempts
    shutil.copytree(base, out)
    with pytest.raises(RunError, match="is there already"):
        export_model(str(adapter), out, merge=True)


def test_a_merge_that_changes_the_model_is_an_error(
    checkpoint: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora import Linear

    trained_adapter(tmp_path / "adapter", checkpoint())
    whole = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda self, name: 1.01 * whole(self, name))
    with pytest.raises(ModelError, match="the merged model is another model"):
        export_model(str(tmp_path / "adapter"), tmp_path / "out", merge=True)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match="nothing was written"):
        exporting.check("it", float("nan"), 1.0)
