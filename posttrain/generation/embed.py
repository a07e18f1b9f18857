"""Texts -> vectors with a language model: the mean of its last hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from posttrain.errors import ModelError, first_line


@dataclass(frozen=True)
class ModelEmbed:
    """The `Embed` protocol of the room `decontamination` over a loaded model.

    Attributes:
        model: a model whose output has `last_hidden_state`, as `AutoModel` gives.
        batch_size: texts forwarded at once; those of similar length go together.
        max_length: tokens of a text that are read.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batch_size: int = 32
    max_length: int = 512

    @classmethod
    def load(cls, name_or_path: str, revision: str | None = None) -> ModelEmbed:
        """A checkpoint by hub id or folder, on the accelerator if there is one.

        Raises:
            ModelError: it cannot be loaded.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(name_or_path, revision=revision)
            model = AutoModel.from_pretrained(name_or_path, revision=revision)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"{name_or_path} cannot be loaded to embed texts: {first_line(error)}"
            ) from error
        return cls(model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> NDArray[np.floating]:
        """`[N]` -> `[N, D]`: the mean over a text's own tokens; zeros for a text without any."""
        rows = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)["input_ids"]
        device = next(self.model.parameters()).device
        width = int(self.model.config.hidden_size)
        vectors = np.zeros((len(rows), width), np.float32)
        order = sorted((i for i in range(len(rows)) if rows[i]), key=lambda i: len(rows[i]))
        training = self.model.training
        self.model.eval()
        try:
            for start in range(0, len(order), self.batch_size):
                part = order[start : start + self.batch_size]
                longest = len(rows[part[-1]])
                padded = [rows[i] + [0] * (longest - len(rows[i])) for i in part]
                ids = torch.tensor(padded, device=device)
                lengths = torch.tensor([len(rows[i]) for i in part], device=device)
                mask = torch.arange(longest, device=device) < lengths[:, None]
                hidden = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
                sums = (hidden.float() * mask[..., None]).sum(1)
                vectors[part] = (sums / lengths[:, None]).cpu().numpy()
        finally:
            self.model.train(training)
        return vectors
