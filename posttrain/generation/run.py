"""One call of an engine in process: what waits, what is under way, what is done.

How the rows under way are forwarded is another's: `engine.py` (packed), `slots.py` (static).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from posttrain.generation.base import Completion, OnGroup, Sampling
from posttrain.generation.sampling import noise, pick
from posttrain.generation.waves import Attend, Prefill

PREFILL_TOKENS = 16_384  # prompt tokens of one forward pass, at most


def forward(
    model: PreTrainedModel,
    ids: torch.Tensor,
    position: torch.Tensor,
    waves: Attend,
    keep: torch.Tensor | int = 0,
) -> torch.Tensor:
    """`[T]` tokens at their positions -> `[T, V]` logits, or those of the places in `keep`."""
    return model(
        input_ids=ids[None],
        position_ids=position[None],
        use_cache=False,
        logits_to_keep=keep,
        waves=waves,
    ).logits[0]


def device_of(model: PreTrainedModel) -> torch.device:
    """Where the tokens go in."""
    return next(model.get_input_embeddings().parameters()).device


@dataclass
class Entered:
    """Prompts that were forwarded just now, and the rows that go on from them.

    Attributes:
        keys: of the prompts, kept by their forward pass.
        logits: `[N, V]` of each row's first token.
        position: `[N]` of the prompts' last tokens.
        lines: `[N]` in the tables.
    """

    keys: Prefill
    logits: torch.Tensor
    position: torch.Tensor
    lines: torch.Tensor


class Run:
    """Prompts enter as rows leave; every row has a line of the tables that answers are written in.

    Args:
        slots: rows under way at a time, at most; the answers to a prompt enter together.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        eos_ids: Sequence[int],
        num_generations: int,
        slots: int,
        seed: int,
        numbers: Sequence[int],
        on_group: OnGroup,
    ) -> None:
        self.model, self.prompts, self.sampling = model, prompts, sampling
        self.copies, self.seed, self.numbers = num_generations, seed, numbers
        self.on_group = on_group
        self.device = device_of(model)
        self.slots = max(self.fitting(slots), num_generations)
        vocabulary = model.config.get_text_config().vocab_size
        self.ends = torch.zeros(vocabulary, dtype=torch.bool, device=self.device)
        for i in eos_ids:
            self.ends[i : i + 1] = True  # a token that the model does not have is no fault
        # prompts of like length enter together
        self.waiting = deque(sorted(range(len(prompts)), key=lambda i: len(prompts[i])))
        self.results: list[list[Completion]] = [[] for _ in prompts]
        self.found: dict[int, dict[int, Completion]] = {}
        lines = min(self.slots, len(prompts) * num_generations)
        shape = (lines, sampling.max_new_tokens)
        self.tokens = torch.zeros(shape, dtype=torch.long, device=self.device)
        self.logps = torch.zeros(shape, device=self.device)
        self.noise = torch.zeros(
            shape if sampling.temperature else (lines, 0), dtype=torch.float64, device=self.device
        )
        self.free = list(range(lines))[::-1]
        self.owner: list[tuple[int, int]] = [(0, 0)] * lines

    def fitting(self, slots: int) -> int:
        """Rows that there is room for, of those that are asked for."""
        return slots

    def enter(self, count: int) -> None:
        """Take up the next prompts, and draw the first token of their rows."""
        raise NotImplementedError

    def step(self) -> None:
        """One more token of every row."""
        raise NotImplementedError

    @property
    def busy(self) -> bool:
        """Whether rows are under way."""
        return len(self.free) < len(self.owner)

    def all(self) -> list[list[Completion]]:
        """Go on until every prompt has its answers."""
        while self.waiting or self.busy:
            while self.entering():
                self.enter(self.entering())
            if self.busy:
                self.step()
        return self.results

    def entering(self) -> int:
        """How many prompts enter now: few at a time would make many small passes."""
        count = min(len(self.free) // self.copies, len(self.waiting))
        enough = count == len(self.waiting) or 4 * count * self.copies >= self.slots
        return count if enough or not self.busy else 0

    def prefill(self, count: int) -> Entered:
        """Forward the next prompts, each once: `count`, or as many as one pass may have."""
        chosen: list[int] = []
        tokens = 0
        while len(chosen) < count:
            tokens += len(self.prompts[self.waiting[0]])
            if chosen and tokens > PREFILL_TOKENS:
                break
            chosen.append(self.waiting.popleft())
        keys = Prefill([len(self.prompts[i]) for i in chosen], self.device)
        ids = torch.tensor([t for i in chosen for t in self.prompts[i]], device=self.device)
        logits = forward(self.model, ids, keys.position, keys, keys.last)
        lines = torch.tensor([self.line(i, g) for i in chosen for g in range(self.copies)])
        return Entered(
            keys,
            logits.repeat_interleave(self.copies, 0),
            keys.position[keys.last].repeat_interleave(self.copies),
            lines.to(self.device),
        )

    def line(self, prompt: int, generation: int) -> int:
        """A free line of the tables for an answer, with the numbers that it is drawn by."""
        line = self.free.pop()
        self.owner[line] = (prompt, generation)
        if self.sampling.temperature:
            drawn = noise(self.seed, self.numbers[prompt], generation, self.sampling.max_new_tokens)
            self.noise[line] = torch.from_numpy(drawn)
        return line

    def draw(
        self, logits: torch.Tensor, lines: torch.Tensor, age: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Choose the next token of some rows, and write down those that end with it.

        Args:
            logits: `[N, V]`; they may be overwritten.
            lines: `[N]` of the tables.
            age: `[N]` tokens that they have already.

        Returns:
            `[N]` tokens, and `[N]` which rows have ended, on the host; `None`: none has.
        """
        uniform = self.noise[lines, age] if self.sampling.temperature else None
        chosen, logps = pick(logits, self.sampling, uniform)
        self.tokens[lines, age] = chosen
        self.logps[lines, age] = logps
        ended = self.ends[chosen]
        gone = ended | (age + 1 == self.sampling.max_new_tokens)
        if not bool(gone.any()):
            return chosen, None
        self.write_down(lines[gone], age[gone] + 1, ended[gone])
        return chosen, gone.cpu()

    def write_down(self, lines: torch.Tensor, ages: torch.Tensor, ended: torch.Tensor) -> None:
        """Rows have ended: their answers, and the groups that are whole now."""
        longest = int(ages.max())
        tokens = self.tokens[lines, :longest].tolist()
        logps = self.logps[lines, :longest].tolist()
        for row, (line, age, end) in enumerate(
            zip(lines.tolist(), ages.tolist(), ended.tolist(), strict=True)
        ):
            prompt, generation = self.owner[line]
            group = self.found.setdefault(prompt, {})
            group[generation] = Completion(tokens[row][:age], end, logps[row][:age])
            self.free.append(line)
            if len(group) == self.copies:
                self.results[prompt] = [group[g] for g in range(self.copies)]
                del self.found[prompt]
                self.on_group(prompt, self.results[prompt])
