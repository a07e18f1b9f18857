"""What the trainers share: packed batches, one loss whatever the split, metrics per source.

The global batch is one thing. Every micro-batch returns the *sum* of its items' losses, which is
divided by the number of items of the whole global batch (all processes, all micro-batches), so
the gradient does not depend on how the batch was split. The seam is `Trainer.get_batch_samples`,
which sees the micro-batches of a step before the first of them is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from posttrain.attention import set_attention
from posttrain.errors import DataError
from posttrain.formats import Row, to_row
from posttrain.head import score
from posttrain.head.chunks import Weights
from posttrain.models import (
    Adapter,
    add_adapter,
    check_checkpoint,
    compile_layers,
    load_model,
    load_tokenizer,
    resize_to,
    stop_where_trained,
)
from posttrain.packing import Collator, forward_inputs
from posttrain.tokens import Tokenizer, tokenize
from posttrain.trainers.guards import Guarded, spoil_gradient
from posttrain.trainers.micro_batches import MicroBatches, each
from posttrain.trainers.saving import undrawn
from posttrain.trainers.throughput import Clock, Metered
from posttrain.trainers.ways import check_offloaded, check_ways

Batch = dict[str, torch.Tensor]


@dataclass
class PostTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` plus what every trainer here needs.

    Attributes:
        max_length: longest sequence in tokens, for raw rows.
        truncation: `truncate` | `drop` | `error` for longer ones.
        packing: rows go into packs of `max_length` tokens (of pairs: twice as many), best-fit over
            the whole data set; `per_device_train_batch_size` then counts packs.
        max_tokens_per_device: tokens per forward pass and process. The other two numbers then
            only say how many rows a step has, and are folded into `per_device_train_batch_size`.
        max_skipped_steps: stop after so many steps in a row whose loss or gradient is not finite.
        compile_layers: backend of torch.compile for every layer (`inductor`), see
            `models.compile_layers`; `None`: not compiled. transformers' own `torch_compile` takes
            the model whole, which then has to make all logits.
    """

    max_length: int = field(default=2048, metadata={"help": "Longest sequence in tokens."})
    truncation: str = field(default="truncate", metadata={"help": "truncate, drop or error."})
    packing: bool = field(default=False, metadata={"help": "Pack rows into packs of max_length."})
    max_tokens_per_device: int | None = field(
        default=None, metadata={"help": "Tokens per forward pass, whatever the number of rows."}
    )
    max_skipped_steps: int = field(
        default=3, metadata={"help": "Stop after so many steps in a row that are not finite."}
    )
    compile_layers: str | None = field(
        default=None, metadata={"help": "Backend of torch.compile for every layer."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Columns are ours to read."}
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "A NaN loss is shown, not hidden."}
    )
    use_cache: bool = field(
        default=True, metadata={"help": "What config.json of a saved model says."}
    )
    average_tokens_across_devices: bool = field(
        default=False, metadata={"help": "Done here, exactly."}
    )

    def __post_init__(self) -> None:
        if not torch.cuda.is_available() and not torch.backends.mps.is_available():
            self.use_cpu = True  # DeepSpeed and DDP then run over gloo
        if self.max_tokens_per_device is not None:  # a step is then one batch of the loop
            self.per_device_train_batch_size *= self.gradient_accumulation_steps
            self.gradient_accumulation_steps = 1
        super().__post_init__()  # type: ignore[no-untyped-call]

    @property
    def global_batch(self) -> int:
        """Rows (packs, if packed) per optimizer step over all processes."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size


class PostTrainer(MicroBatches, Guarded, Metered):
    """Base of the four trainers. A subclass says what a row is and what its loss is.

    Args:
        model: a loaded model, a folder or a hub id.
        args: the trainer's config.
        train_dataset, eval_dataset: raw rows in the ecosystem's shapes, or tokenised ones.
        processing_class: the tokenizer; default: the model's own.
        peft_config: a peft `LoraConfig`, or our `Adapter`; trains adapters only.
        callbacks, optimizers: as in `transformers.Trainer`.
    """

    args: PostTrainingArguments
    model: Any
    train_dataset: Any
    processing_class: PreTrainedTokenizerBase
    row_kind = "conversation"
    head = "lm"
    loss_is_scaled_for_ga = True
    config_class: type[PostTrainingArguments] = PostTrainingArguments

    def __init__(
        self,
        model: str | PreTrainedModel | nn.Module,
        args: PostTrainingArguments | None = None,
        data_collator: Callable[..., Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: Any = None,
    ) -> None:
        args = args if args is not None else self.config_class(output_dir="runs/trainer")
        set_seed(args.seed)  # fresh adapters and heads are drawn below
        loaded, processing_class = ready(model, processing_class, peft_config, self.head)
        self.tokenizer_for_rows = Tokenizer(
            processing_class,
            args.max_length,
            args.truncation,
            getattr(args, "max_prompt_length", None),
        )
        train_dataset = self.prepare(train_dataset)
        if isinstance(eval_dataset, Mapping):
            eval_dataset = {name: self.prepare(rows) for name, rows in eval_dataset.items()}
        else:
            eval_dataset = self.prepare(eval_dataset)
        if args.compile_layers:
            compile_layers(loaded, args.compile_layers)
        self.start_metering(source_names(train_dataset, eval_dataset))
        super().__init__(
            model=loaded,
            args=args,
            data_collator=data_collator
            or Collator({name: i for i, name in enumerate(self.sources)}),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        check_ways(args, self.accelerator)
        self.add_callback(Clock(self))

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Trainer's hook: the same, refused where DeepSpeed would quietly take another."""
        optimizer = super().create_optimizer(model)
        check_offloaded(optimizer, self.accelerator)
        return optimizer

    # --- data -------------------------------------------------------------------------------------

    def prepare(self, rows: Any) -> Any:
        """Raw rows -> tokens; tokenised rows pass.

        Raises:
            DataError: a row that cannot be read, or no row left to train on.
        """
        if rows is None:
            return None
        if not hasattr(rows, "__len__") or not len(rows):
            raise DataError("a data set needs a length and at least one row; streams are not read")
        columns = set(getattr(rows, "column_names", None) or rows[0])
        if {"input_ids", "prompt_ids"} & columns:
            if "input_ids" in columns and "labels" not in columns:
                raise DataError(
                    "tokenised rows need `labels` beside `input_ids`, -100 where untrained"
                )
            return rows
        read = []
        for i, raw in enumerate(rows):
            try:
                read.append({**self.read(raw), "source": raw.get("source") or "data"})
            except DataError as error:
                raise DataError(f"row {i}: {error}") from error
        return tokenize(read, self.row_kind, self.tokenizer_for_rows).rows

    def read(self, raw: Mapping[str, Any]) -> Row:
        """One raw row in the shape that this trainer's tokens are made from."""
        return to_row(self.row_kind, raw)

    def get_train_dataloader(self) -> DataLoader[Any]:
        args = self.args
        seed = args.data_seed if args.data_seed is not None else args.seed
        return self.loader(
            self.train_dataset, args.global_batch, args.per_device_train_batch_size, seed, True
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        rows = eval_dataset if eval_dataset is not None else self.eval_dataset
        micro = self.args.per_device_eval_batch_size
        return self.loader(rows, micro * self.accelerator.num_processes, micro, 0, False)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], torch.Tensor]:
        """The batches of one optimizer step, and its number of items over all processes."""
        batches = list(islice(epoch_iterator, num_batches))
        return batches, self.count_items(list(each(batches)), device)

    def count_items(self, batches: Sequence[Batch], device: torch.device) -> torch.Tensor:
        """Items of a global batch: the denominator of the loss."""
        local = (
            torch.stack([self.num_items(b) for b in batches]).sum().to(device)
            if batches
            else torch.zeros((), device=device)
        )
        return self.accelerator.reduce(local.float(), reduction="sum").clamp(min=1)

    # --- loss -------------------------------------------------------------------------------------

    def num_items(self, batch: Batch) -> torch.Tensor:
        """How many items (tokens, sequences, pairs) a micro-batch adds to the denominator."""
        raise NotImplementedError

    def loss_sum(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Sum of the losses of a micro-batch's items."""
        raise NotImplementedError

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Trainer's hook: this micro-batch's share of the global loss.

        Processes average their gradients, hence the factor.
        """
        loss = self.loss_sum(model, inputs)
        items = (
            num_items_in_batch
            if num_items_in_batch is not None
            else self.count_items([inputs], loss.device)
        )
        loss = spoil_gradient(loss * self.accelerator.num_processes / items)
        return (loss, {}) if return_outputs else loss

    def logps(
        self,
        model: nn.Module,
        batch: Batch,
        temperature: float = 1.0,
        weights: Weights = None,
        z_loss: float = 0.0,
    ) -> torch.Tensor:
        """`[K]` log-probs of the trained tokens; no other position reaches the head.

        `weights` `[K]` is the gradient of the loss at each of them, up to one factor, where it is
        known already, or how it will be: the head's gradients are then made on the way (see
        `posttrain.head.score`).
        """
        inputs = forward_inputs(batch)
        if not len(batch["keep"]):  # such a share of a partial batch still joins collectives
            return (score(model, inputs, 1, batch["input_ids"][0, :1]) * 0).sum().expand(0)
        keep, targets = batch["keep"], batch["targets"]
        return score(model, inputs, keep, targets, temperature, weights, z_loss)

    # --- evaluation -------------------------------------------------------------------------------

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Loss over the items of the whole evaluation set (not a mean of batch means)."""
        rows = eval_dataset if eval_dataset is not None else self.eval_dataset
        if isinstance(rows, Mapping):
            merged: dict[str, float] = {}
            for name, part in rows.items():
                merged |= self.evaluate(part, ignore_keys, f"{metric_key_prefix}_{name}")
            return merged
        model = self.model_wrapped if self.model_wrapped is not None else self.model
        model.eval()
        total = torch.zeros(2, device=self.args.device)
        with self.apart():
            with torch.no_grad(), undrawn(self.args.device):
                for batch in each(self.get_eval_dataloader(self.prepare(rows))):
                    batch = self._prepare_inputs(batch)
                    with self.compute_loss_context_manager():
                        total[0] += self.loss_sum(model, batch).float()
                    total[1] += self.num_items(batch).to(total.device)
            loss, items = self.accelerator.reduce(total, reduction="sum").tolist()
            metrics = {"loss": loss / max(items, 1), **self.drain()}
            metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
            self.log(metrics)
            self.control = self.callback_handler.on_evaluate(
                self.args, self.state, self.control, metrics
            )
        return metrics


def ready(
    model: Any, tokenizer: PreTrainedTokenizerBase | None, peft_config: Any, head: str
) -> tuple[Any, PreTrainedTokenizerBase]:
    """The model, loaded and with its adapters, and the tokenizer whose tokens it has rows for."""
    if isinstance(model, str):
        check_checkpoint(model)
        tokenizer = tokenizer or load_tokenizer(model)
        adapter = peft_config if isinstance(peft_config, Adapter) else None
        model = load_model(model, head=head, adapter=adapter)
        peft_config = None if adapter else peft_config
    tokenizer = tokenizer or load_tokenizer(model.config._name_or_path)
    if peft_config is not None:
        model = wrap(model, peft_config, head)
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    set_attention(bare)
    resize_to(bare, tokenizer)
    stop_where_trained(bare, tokenizer)
    return model, tokenizer


def wrap(model: Any, peft_config: Any, head: str) -> Any:
    """Adapters on a loaded model, from our `Adapter` or a peft config."""
    if isinstance(peft_config, Adapter):
        return add_adapter(model, peft_config, head)
    from peft import get_peft_model

    return get_peft_model(model, peft_config)


def source_names(*datasets: Any) -> list[str]:
    """Every source of the data sets, in order of first appearance."""
    names: dict[str, None] = {}
    for rows in datasets:
        for part in rows.values() if isinstance(rows, Mapping) else [rows]:
            columns = getattr(part, "column_names", None)
            if part is not None and columns and "source" in columns:
                names |= dict.fromkeys(part.unique("source"))
    return list(names) or ["data"]
