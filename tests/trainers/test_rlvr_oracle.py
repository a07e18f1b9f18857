"""One rollout's steps end in the weights of the plain updates of examples/rlvr.py."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForTokenClassification

from posttrain import RLVRConfig, RLVRTrainer
from posttrain.attention import set_attention
from posttrain.generation.base import Completion, ignore
from posttrain.generation.probe import compare, forced_logps
from posttrain.models import Adapter, load_model
from posttrain.trainers.value import load_value_model

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "rlvr.py"
PROBLEMS = [{"prompt": f"Say {n}."} for n in range(8)]
RATE = 0.1


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_rlvr", EXAMPLE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def even_share(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def planted(
    prompts: list[list[int]], numbers: list[int], on_group: Any = ignore
) -> list[list[Completion]]:
    """Answers of 1 to 6 tokens, by the number of the row; every fourth one is cut off."""
    groups = []
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        rows = [torch.randint(1, 300, (1 + (g * 3 + number) % 6,), generator=generator)
                for g in range(SIZE)]  # fmt: skip
        groups.append([Completion(r.tolist(), (g + number) % 4 > 0) for g, r in enumerate(rows)])
    return groups


SIZE = 4


def trained(
    checkpoint: Callable[..., str], folder: Path, size: int, **more: Any
) -> tuple[RLVRTrainer, list[list[Any]], dict[str, torch.Tensor] | None]:
    """A trainer that has trained on one planted rollout; its rollout; its values' start."""
    args = RLVRConfig(
        output_dir=str(folder),
        **{
            "per_device_train_batch_size": 2,
            "num_generations": size,
            "optim": "sgd",
            "learning_rate": RATE,
            "lr_scheduler_type": "constant",
            "reward_scale": 10.0,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            **more,
        },
    )
    torch.manual_seed(0)
    options: dict[str, Any] = {}
    if more.get("advantage") == "gae":
        critic = load_value_model("policy", checkpoint())
        torch.nn.init.normal_(critic.score.weight, std=0.3)
        options["value_model"] = critic
    trainer = RLVRTrainer(
        checkpoint(), even_share, args, train_dataset=PROBLEMS, **options
    )  # fmt: skip
    start = {n: p.clone() for n, p in critic.state_dict().items()} if options else None
    trainer.complete = lambda p, n, *_: [g[:size] for g in planted(p, n)]
    assert trainer.reference is not None
    other = AutoModelForCausalLM.from_pretrained(checkpoint(initializer_range=0.1))
    set_attention(other)
    trainer.reference.copy = other.eval()
    seen: list[Any] = []
    trainer.on_rollout = seen.extend
    trainer.train()
    return trainer, seen, start


def samples(plain: ModuleType, rollouts: list[Any]) -> list[list[Any]]:
    """The same rollout for the plain update."""
    return [
        [
            plain.Sample(r.row["prompt_ids"], c.ids, even_share([c.ids])[0], c.finished)
            for c in r.completions
        ]
        for r in rollouts
    ]


def sgd(model: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=RATE)


def same(ours: Any, theirs: Any) -> None:
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


def moved(model: Any, path: str) -> bool:
    start = AutoModelForCausalLM.from_pretrained(path)
    pairs = zip(model.parameters(), start.parameters(), strict=True)
    return all(float((a - b).abs().max()) > 1e-4 for a, b in pairs)


PPO = {
    "advantage": "gae",
    "loss": "ppo",
    "kl_in": "reward",
    "beta": 0.05,
    "missing_eos_reward": -10.0,
    "num_ppo_epochs": 2,
    "num_mini_batches": 2,
    "max_steps": 4,
}


@pytest.mark.parametrize(
    "cut",
    [
        {"gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": 4},
        {"per_device_train_batch_size": 4, "max_tokens_per_device": 40, "max_completion_length": 8},
    ],
)
def test_ppo_equals_the_plain_update(
    plain: ModuleType, checkpoint: Callable[..., str], tmp_path: Path, cut: dict[str, int]
) -> None:
    trainer, rollouts, start = trained(checkpoint, tmp_path, 1, **PPO, **cut)
    assert trainer.state.global_step == 4
    assert len(rollouts) == 8
    policy = AutoModelForCausalLM.from_pretrained(checkpoint()).eval()
    reference = AutoModelForCausalLM.from_pretrained(checkpoint(initializer_range=0.1)).eval()
    critic = LlamaForTokenClassification.from_pretrained(checkpoint(), num_labels=1).eval()
    critic.score.register_parameter("bias", None)
    assert start is not None
    critic.load_state_dict(start)
    flat = [sample for group in samples(plain, rollouts) for sample in group]
    plain.ppo_update(
        policy, critic, reference, flat, (sgd(policy), sgd(critic)),
        epochs=2, num_mini_batches=2, missing_eos=-10.0,
    )  # fmt: skip
    same(trainer.value_model, critic)
    with trainer.policy_alone():
        same(trainer.model, policy)
        assert moved(trainer.model, checkpoint())


def test_grpo_equals_the_plain_update(
    plain: ModuleType, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer, rollouts, _ = trained(
        checkpoint,
        tmp_path,
        SIZE,
        beta=0.01,
        loss_reduction="token_mean",
        missing_eos_reward=0.0,
        num_mini_batches=2,
        gradient_accumulation_steps=8,
        max_steps=2,
    )
    assert trainer.state.global_step == 2
    policy = AutoModelForCausalLM.from_pretrained(checkpoint()).eval()
    reference = AutoModelForCausalLM.from_pretrained(checkpoint(initializer_range=0.1)).eval()
    plain.grpo_update(policy, reference, samples(plain, rollouts), sgd(policy), num_mini_batches=2)
    same(trainer.model, policy)
    assert moved(trainer.model, checkpoint())


# --- adapters -------------------------------------------------------------------------------------

WIDE = {"hidden_size": 64, "intermediate_size": 128}  # 4-bit weights come in blocks of 64
GRPO = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 8,
    "num_generations": SIZE,
    "num_mini_batches": 2,
    "max_steps": 2,
    "beta": 0.05,
    "loss_reduction": "token_mean",
    "reward_scale": 10.0,
    "missing_eos_reward": 0.0,
    "optim": "sgd",
    "learning_rate": RATE,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
}


def adapters_of(model: Any) -> dict[str, torch.nn.Parameter]:
    return {n: p for n, p in model.named_parameters() if "lora_" in n}


def adapted(folder: str, four_bit: bool) -> Any:
    """A model whose adapters already say something."""
    model = load_model(folder, adapter=Adapter(r=4, alpha=8, load_in_4bit=four_bit))
    for name, parameter in adapters_of(model).items():
        parameter.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    return model


def rounded(model: Any, like: Any) -> Any:
    """A model with the weights that another one holds in 4 bits, in fp32."""
    functional = pytest.importorskip("bitsandbytes").functional
    coarse = dict(like.get_base_model().named_modules())
    for name, module in model.named_modules():
        four = getattr(coarse.get(name), "base_layer", None)
        if four is not None:
            whole = functional.dequantize_4bit(four.weight, four.weight.quant_state)
            module.weight.data = whole.to(module.weight)
    return model


@pytest.mark.parametrize("four_bit", [False, True], ids=["lora", "qlora"])
def test_grpo_of_adapters_equals_the_plain_update_and_the_reference_is_without_them(
    four_bit: bool, plain: ModuleType, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    """The adapters are no longer fresh, so the reference is another model than the policy."""
    from peft import LoraConfig, get_peft_model

    if four_bit:
        pytest.importorskip("bitsandbytes")
    folder = checkpoint(**WIDE)
    model = adapted(folder, four_bit)
    start = {name: p.detach().clone() for name, p in adapters_of(model).items()}
    reference, base = (AutoModelForCausalLM.from_pretrained(folder).eval() for _ in range(2))
    if four_bit:
        reference, base = rounded(reference, model), rounded(base, model)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    policy = get_peft_model(base, config).eval()
    for name, parameter in adapters_of(policy).items():
        parameter.data.copy_(start[name])

    args = RLVRConfig(output_dir=str(tmp_path), **GRPO)
    trainer = RLVRTrainer(model, even_share, args, train_dataset=PROBLEMS)
    trainer.complete = lambda p, n, *_: planted(p, n)
    seen: list[Any] = []
    trainer.on_rollout = seen.extend
    trainer.train()
    assert trainer.reference is not None and trainer.reference.copy is None
    assert [row["kl"] > 0.01 for row in trainer.state.log_history if "kl" in row] == [True] * 2

    trained = adapters_of(policy)
    plain.grpo_update(
        policy, reference, samples(plain, seen), torch.optim.SGD(trained.values(), lr=RATE),
        beta=0.05, num_mini_batches=2,
    )  # fmt: skip
    found = adapters_of(model)
    assert found.keys() == trained.keys() and len(found) == 28
    for name, parameter in trained.items():
        torch.testing.assert_close(found[name], parameter, rtol=0, atol=1e-5 if four_bit else 1e-6)
        assert float((parameter - start[name]).detach().abs().max()) > 1e-4


@pytest.mark.parametrize("four_bit", [False, True], ids=["lora", "qlora"])
def test_what_completes_is_the_policy_with_its_adapters(
    four_bit: bool, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    """In every rollout, after steps too; what is under the adapters stays, bit for bit."""
    if four_bit:
        pytest.importorskip("bitsandbytes")
    model = adapted(checkpoint(**WIDE), four_bit)
    held = {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" not in n}
    more = {
        "num_mini_batches": 1,
        "max_steps": 3,
        "max_completion_length": 6,
        "save_rollouts": False,
    }
    args = RLVRConfig(output_dir=str(tmp_path), **{**GRPO, **more})
    trainer = RLVRTrainer(model, even_share, args, train_dataset=PROBLEMS)
    gaps: list[float] = []

    def look(rollouts: list[Any]) -> None:
        prompts = [r.row["prompt_ids"] for r in rollouts for _ in r.completions]
        answers = [c for r in rollouts for c in r.completions]
        gaps.append(compare(prompts, answers, forced_logps(model, prompts, answers, 1.0)).largest)

    trainer.on_rollout = look
    trainer.train()
    assert len(gaps) == 3 and max(gaps) < 1e-4
    assert all(torch.equal(p, held[n]) for n, p in model.named_parameters() if n in held)
