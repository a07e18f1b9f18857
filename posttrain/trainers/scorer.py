"""What a model makes of answers: a reward model's score, or a policy's log-probability.

Reward functions, pair tasks and best-of-n all ask the same thing, many answers to each prompt. A
prompt is forwarded once for all of its answers, and answers are packed without padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from posttrain.attention import set_attention
from posttrain.errors import DataError, ModelError
from posttrain.formats import Message, Row, shown
from posttrain.head import score as token_logps
from posttrain.losses.base import segment_sum
from posttrain.models import load_config, load_model, load_tokenizer
from posttrain.packing import Group, forward_inputs, pack
from posttrain.tokens import Tokenizer
from posttrain.tokens.coder import check_text
from posttrain.tokens.spans import pair_spans

MAX_TOKENS = 8192  # of one forward pass; a prompt and its answers stay together
FOR_REWARD = "ForSequenceClassification"


def is_reward_model(config: Any) -> bool:
    """Whether a configuration is that of a checkpoint with a scalar head."""
    return FOR_REWARD in "".join(getattr(config, "architectures", None) or [])


def has_scalar_head(model: Any) -> bool:
    """Whether a loaded model scores rather than writes."""
    return not hasattr(model, "lm_head") and hasattr(model, "score")


@dataclass
class Scorer:
    """Numbers for answers, higher for better ones.

    A reward model gives its score at the answer's last token. A policy gives the answer's summed
    log-probability; beside a `reference`, the implicit reward that DPO trains: how much more
    probable the answer is than under the reference (Rafailov et al. 2023, arXiv:2305.18290, Eq. 5,
    with beta 1).

    Attributes:
        model: with a scalar head or a language-model head, on its device.
        words: its tokenizer. Answers that do not fit its `max_length` are cut at the end.
        reference: a policy with the same tokenizer.
        length_normalise: log-probabilities per token rather than summed.
        cut: how many answers were cut so far.
    """

    model: PreTrainedModel
    words: Tokenizer
    reference: PreTrainedModel | None = None
    length_normalise: bool = False
    cut: int = field(default=0, init=False)

    @classmethod
    def of(cls, model: Any, tokenizer: PreTrainedTokenizerBase | None = None, **more: Any) -> Any:
        """A scorer of a loaded model; its context bounds what it reads."""
        tokenizer = tokenizer or load_tokenizer(model.config._name_or_path)
        if not tokenizer.chat_template:
            raise ModelError(
                f"the tokenizer of {model.config._name_or_path!r} has no chat template, so it is"
                " unknown how a prompt and its answer are written; set tokenizer.chat_template"
            )
        text = model.config.get_text_config()
        limit = getattr(text, "max_position_embeddings", None) or 1 << 30
        return cls(model, Tokenizer(tokenizer, limit), **more)

    @property
    def scalar(self) -> bool:
        """Whether the numbers are a reward model's."""
        return has_scalar_head(self.model)

    @torch.no_grad()
    def __call__(self, rows: Sequence[Row]) -> list[list[float]]:
        """Per row a number for each of its answers.

        Args:
            rows: `prompt` (messages), `answers` (texts or assistant messages) and maybe `tools`.

        Raises:
            DataError: a conversation that the chat template refuses, or a prompt that leaves no
                room for an answer.
        """
        groups = [self.told(row) for row in rows]
        lengths = [len(g.prompt_ids) + sum(len(ids) for ids, _ in g.branches) for g in groups]
        out: list[list[float]] = [[] for _ in rows]
        with evaluating(self.model), evaluating(self.reference):
            for part in parts(lengths, MAX_TOKENS):
                values = iter(self.values([groups[i] for i in part]).tolist())
                for i in part:
                    out[i] = [next(values) for _ in groups[i].branches]
        return out

    def told(self, row: Row) -> Group:
        """`group`, whose error says which prompt it was."""
        try:
            return self.group(row)
        except DataError as error:
            said = shown(row["prompt"][-1].get("content"))
            raise DataError(f"prompt {said}: {error}") from error

    def group(self, row: Row) -> Group:
        """A prompt and its answers as tokens. All that the answers share comes before them."""
        sides = {str(i): [turn(answer)] for i, answer in enumerate(row["answers"])}
        rendered = pair_spans(self.words.template, self.words.marks, {**row, **sides}, sides)
        for text, _ in rendered:
            check_text(text)
        done = self.words.coder.encode([t for t, _ in rendered], [s for _, s in rendered])
        starts = np.minimum(done.first, done.bounds[1:]) - done.bounds[:-1]
        whole = [done.ids[a:b] for a, b in zip(done.bounds[:-1], done.bounds[1:], strict=True)]
        shared = common(whole, int(starts.min()))
        limit = self.words.max_length
        if not 0 < shared < limit:
            raise DataError(
                f"a prompt has {shared} tokens and the model's context is {limit}: no answer fits;"
                " shorten the prompt or leave the row out"
            )
        self.cut += sum(len(ids) > limit for ids in whole)
        branches = [ids[shared:limit].tolist() for ids in whole]
        return Group(whole[0][:shared].tolist(), [(ids, ids) for ids in branches])

    def values(self, groups: Sequence[Group]) -> torch.Tensor:
        """`[answers]` numbers of all groups, in order."""
        packed = pack(groups).items()
        batch = {name: tensor.to(self.model.device) for name, tensor in packed}
        if self.scalar:
            return scores(self.model, batch)
        values = logps(self.model, batch)
        if self.reference is not None:
            values = values - logps(self.reference, batch)
        return values / batch["tokens"] if self.length_normalise else values


def turn(answer: str | Message) -> Message:
    """An answer as the model's turn."""
    return {"role": "assistant", "content": answer} if isinstance(answer, str) else answer


def common(rows: Sequence[np.ndarray], most: int) -> int:
    """How many tokens all rows begin with, at most `most`."""
    for row in rows[1:]:
        differ = np.flatnonzero(rows[0][:most] != row[:most])
        most = int(differ[0]) if len(differ) else most
    return most


def parts(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Numbers of rows of similar length, together at most `max_tokens` long, or one by one."""
    mine: list[int] = []
    total = 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if mine and total + lengths[i] > max_tokens:
            yield mine
            mine, total = [], 0
        mine.append(i)
        total += lengths[i]
    if mine:
        yield mine


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model without dropout and with packed attention, then as it was."""
    if model is None:
        yield
        return
    training, before = model.training, model.config._attn_implementation
    model.eval()
    set_attention(model)
    try:
        yield
    finally:
        set_attention(model, before)
        model.train(training)


def scores(model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """`[S]` scores at the last token of each sequence, whichever class holds the head."""
    hidden = model.base_model(**forward_inputs(batch), use_cache=False).last_hidden_state[0]
    last, head = hidden[batch["last"]], model.score
    if type(head) is torch.nn.Linear:  # in bfloat16 close scores would be the same
        bias = None if head.bias is None else head.bias.float()
        score = torch.nn.functional.linear(last.float(), head.weight.float(), bias)
    else:
        score = head(last)
    if score.shape[-1] != 1:
        raise ModelError(f"a reward model has one score, this head has {score.shape[-1]}")
    return score[:, 0].float()


def logps(model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """`[S]` summed log-probabilities of the answers."""
    each = token_logps(model, forward_inputs(batch), batch["keep"], batch["targets"])
    return segment_sum(each, batch["segment"], len(batch["tokens"]))


def load_reward_model(path: str, **options: Any) -> Scorer:
    """A reward model's checkpoint, whole on this process's device.

    Raises:
        ModelError: it cannot be loaded, or has no scores.
    """
    if not is_reward_model(load_config(path, **options)):
        raise ModelError(
            f"{path!r} is not a reward model: its config.json names no {FOR_REWARD} class, so its"
            " head would be random; give the model of a reward stage"
        )
    with whole_weights():
        model: Any = load_model(path, head="scalar", **options)
    if torch.cuda.is_available():
        model = model.to(PartialState().device, torch.bfloat16)
    scorer: Scorer = Scorer.of(model.eval().requires_grad_(False), load_tokenizer(path, **options))
    return scorer


@contextmanager
def whole_weights() -> Iterator[None]:
    """Models loaded here are not partitioned, though the one in training may be (ZeRO-3)."""
    from transformers.integrations import deepspeed

    kept = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = kept
