"""Whether the engine that samples and the model that is trained compute the same.

An importance ratio, a KL term and a clip all compare log-probs of the two. Where they come from
other weights, another position encoding or other tokens, training goes on and learns nothing, or
worse. The probe completes known prompts with the engine and puts its log-probs beside those that
the model has for the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from posttrain.attention import use_attention
from posttrain.errors import ProbeError
from posttrain.generation.base import Completion, Engine, Sampling
from posttrain.generation.engine import own_attention
from posttrain.generation.run import device_of

NEW_TOKENS = 16
MANY_OTHERS = 0.2  # a larger share of tokens that the model would not choose is no rounding


@dataclass(frozen=True)
class Probe:
    """What came out.

    Attributes:
        mean, largest: of the gap of a token, |log-prob of the engine - log-prob of the model|.
        tokens: that were compared.
        others: share of them that the model would not have chosen (greedy probes).
        first: mean gap of the first tokens of the answers, for which nothing was cached.
        where: the largest gap in words.
        versions: of the weights, as the engine says.
    """

    mean: float
    largest: float
    tokens: int
    others: float
    first: float
    where: str
    versions: tuple[int | None, ...]


def probe(
    engine: Engine,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Sequence[int]],
    *,
    max_gap: float = 1.0,
    mean_gap: float = 0.05,
    max_new_tokens: int = NEW_TOKENS,
    temperature: float = 0.0,
) -> Probe:
    """Complete prompts with the engine, and compare its log-probs with the model's.

    The model runs as it is called: a caller who trains under autocast, or with weights in parts,
    makes that context around the call.

    Args:
        engine: that samples for the trainer.
        model: that is trained; a peft model runs with its adapter.
        tokenizer: for prompts that are texts.
        prompts: texts or token ids.
        max_gap, mean_gap: bounds of the largest and of the mean gap, in nats. The defaults hold for
            bfloat16; in fp32 on both sides 0.01 and 0.001 do.
        temperature: of the draw; 0 is greedy.

    Raises:
        ProbeError: a gap above its bound; the message has the likely causes.
    """
    ids = [tokenizer(p, add_special_tokens=False)["input_ids"] if isinstance(p, str) else list(p)
           for p in prompts]  # fmt: skip
    sampling = Sampling(max_new_tokens, temperature)
    answers = [group[0] for group in engine(ids, sampling)]
    found = compare(ids, answers, forced_logps(model, ids, answers, temperature or 1.0))
    if not (found.mean <= mean_gap and found.largest <= max_gap):  # not: a NaN is a gap, too
        raise ProbeError(explain(found, temperature, max_gap, mean_gap))
    return found


@torch.no_grad()
def forced_logps(
    model: Any, prompts: Sequence[list[int]], answers: Sequence[Completion], temperature: float
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Per answer the `[T]` fp32 log-probs of its tokens, and the `[T]` most probable tokens."""
    training = model.training
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    out = []
    model.eval()
    try:
        with use_attention(bare, own_attention(bare)):
            for prompt, answer in zip(prompts, answers, strict=True):
                row = torch.tensor([[*prompt, *answer.ids]], device=device_of(model))
                logits = model(input_ids=row, use_cache=False).logits[0, len(prompt) - 1 : -1]
                logps = (logits.float() / temperature).log_softmax(-1)
                chosen = torch.tensor(answer.ids, device=logps.device)
                own = logps.gather(-1, chosen[:, None])[:, 0]
                out.append((own.cpu(), logits.argmax(-1).cpu()))
    finally:
        model.train(training)
    return out


def compare(
    prompts: Sequence[list[int]],
    answers: Sequence[Completion],
    forced: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> Probe:
    """The gaps of all tokens in a few numbers."""
    gaps, others, first, where, largest = [], 0, [], "", -1.0
    for i, (answer, (own, best)) in enumerate(zip(answers, forced, strict=True)):
        theirs = torch.tensor(answer.logps)
        gap = (theirs - own).abs().nan_to_num(nan=float("inf"))
        others += int((torch.tensor(answer.ids) != best).sum())
        gaps.append(gap)
        first.append(gap[:1])
        at = int(gap.argmax())
        if float(gap[at]) > largest:
            largest = float(gap[at])
            where = (
                f"token {at} of the answer to prompt {i} (id {answer.ids[at]}): "
                f"{float(theirs[at]):.4f} by the engine, {float(own[at]):.4f} by the model"
            )
    every = torch.cat(gaps)
    return Probe(
        mean=float(every.mean()),
        largest=largest,
        tokens=len(every),
        others=others / len(every),
        first=float(torch.cat(first).mean()),
        where=where,
        versions=tuple(dict.fromkeys(answer.version for answer in answers)),
    )


def explain(found: Probe, temperature: float, max_gap: float, mean_gap: float) -> str:
    """What the gap was, and where one of its shape comes from."""
    greedy = temperature == 0
    if (greedy and found.others > MANY_OTHERS) or found.first > 10 * mean_gap:
        causes = (
            "the engine has other weights (a push that is missing, an adapter that is not applied "
            "or scaled in another way, another checkpoint), or reads other tokens"
        )
    elif found.first <= mean_gap:
        causes = (
            "the first tokens of the answers agree and later ones do not: position encoding (rope "
            "scaling, a sliding window), or keys and values cached under other weights"
        )
    else:
        causes = (
            "the two compute in different precision (dtype of the server, a quantised model), or a "
            "mixture of experts is routed differently; if that is meant, raise the bounds and "
            "train with an importance correction"
        )
    if not greedy and temperature != 1:
        causes += "; or the engine's log-probs are those before the temperature"
    versions = ", ".join("the trainer's own" if v is None else str(v) for v in found.versions)
    return (
        f"the engine and the model disagree about {found.tokens} tokens: log-probs differ by "
        f"{found.mean:.4g} on average (bound: {mean_gap:g}) and by {found.largest:.4g} at most "
        f"(bound: {max_gap:g}), at {found.where}. The model would have chosen another token for "
        f"{found.others:.0%}. Weights: version {versions}. Likely: {causes}"
    )
