"""From conversations to packed tokens: ours, and what TRL's SFTTrainer does before its first step.

Ours starts from a .jsonl file on disk with an empty cache: it reads, checks, tokenises, masks,
writes the tokens in their shuffled order and packs them best-fit over the whole data set. TRL
starts from a `Dataset` that is loaded already, with a template that marks the answers: it
tokenises, masks (`assistant_only_loss`) and packs (`bfd`), in one process as it does by default and
in as many as there are cores. The faster of the two is the peer.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
LENGTH = 2048
VOCABULARY = 16_000
PAIRS = (  # file, prompt fields, answer field
    ("gpteacher/codegen-instruct.jsonl.gz", ("instruction", "input"), "response"),
    ("gpteacher/toolformer-similarity-0.6.jsonl.gz", ("instruction", "input"), "response"),
    ("dolly_hhrlhf/train_small.jsonl.gz", ("prompt",), "response"),
    ("flan_cot/strategyqa_train.jsonl.gz", ("question",), "rationale"),
    ("flan_cot/aqua_train.jsonl.gz", ("question",), "rationale"),
    ("gsm8k/train.jsonl.gz", ("question",), "answer"),
)
# tulu, with the marks that TRL's `assistant_only_loss` needs
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ '<|assistant|>\\n' }}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% if not loop.last %}{{ '\\n' }}{% endif %}{% else %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '\\n' }}{% endif %}{% endfor %}"
)


def conversations() -> list[dict[str, Any]]:
    """Real rows as conversations; every third and its two neighbours become one of three turns."""
    import gzip

    turns = []
    for name, prompt, answer in PAIRS:
        with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                asked = "\n\n".join(row[field] for field in prompt if row.get(field))
                if asked.strip() and row[answer].strip():
                    user = {"role": "user", "content": asked}
                    turns.append([user, {"role": "assistant", "content": row[answer]}])
    preferences = DATA / "ultrafeedback" / "train_1000.jsonl.gz"
    with gzip.open(preferences, "rt", encoding="utf-8") as file:
        for line in file:
            chosen = json.loads(line)["chosen"]
            if isinstance(chosen, list):
                turns.append([{"role": m["role"], "content": m["content"]} for m in chosen])
    rows, i = [], 0
    while i < len(turns):
        size = 3 if i % 10 == 0 else 1
        rows.append({"messages": [m for turn in turns[i : i + size] for m in turn]})
        i += size
    return rows


def prepare(folder: str, count: int) -> dict[str, Any]:
    """Write the rows and a tokenizer that was trained on them."""
    sys.path.insert(0, str(ROOT))
    from posttrain.scratch import new_config, new_tokenizer

    rows = conversations()
    texts = [m["content"] for row in rows for m in row["messages"]]
    tokenizer = new_tokenizer(texts, VOCABULARY, "tulu")
    tokenizer.save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": len(tokenizer)}
    config = new_config({"model_type": "llama", **small, **heads})
    config.save_pretrained(folder)
    size = 0
    with (Path(folder) / "rows.jsonl").open("w", encoding="utf-8") as out:
        for i in range(count):
            size += out.write(json.dumps(rows[i % len(rows)], ensure_ascii=False) + "\n")
    return {"distinct_rows": len(rows), "bytes": size}


def ours(folder: str, workers: int) -> dict[str, Any]:
    """Read, check, tokenise, mask, write, pack."""
    os.environ["POSTTRAIN_CACHE"] = f"{folder}/cache"
    os.environ["POSTTRAIN_NUM_PROC"] = str(workers)
    import datasets  # noqa: F401  (its import is no part of the work)
    import numpy as np

    from posttrain.mixture import build_mixture
    from posttrain.models import load_tokenizer
    from posttrain.packing.best_fit import best_fit
    from posttrain.parallel import keep_workers
    from posttrain.tokens import Tokenizer
    from posttrain.tokens.stores import Job, order_tokens, save, token_store

    tokenizer = Tokenizer(load_tokenizer(folder), LENGTH)
    begin = time.perf_counter()
    with keep_workers():
        rows = build_mixture([{"path": f"{folder}/rows.jsonl"}], seed=1).rows
        job = Job(rows.stores[0], "rows", "conversation", tokenizer)
        store = token_store(job, np.arange(rows.stores[0].rows), None, lambda n: None)
    tokens = order_tokens("conversation", [store], ["rows"], rows.which, rows.row)
    save(tokens, Path(folder) / "ours")
    lengths = tokens.lengths(0)
    bins = best_fit(lengths, LENGTH)
    seconds = time.perf_counter() - begin
    facts = tokens.facts(0)
    fill = bins.fill(lengths, LENGTH)
    trained = facts["trained_tokens"]
    return {"seconds": seconds, "tokens": facts["tokens"], "trained": trained, "fill": fill}


def theirs(folder: str, workers: int) -> dict[str, Any]:
    """What `SFTTrainer` does with the same rows when it is made."""
    os.environ["HF_DATASETS_CACHE"] = f"{folder}/hf-{workers}"
    import torch
    from datasets import load_dataset
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    rows = load_dataset("json", data_files=f"{folder}/rows.jsonl", split="train")
    config = SFTConfig(
        output_dir=f"{folder}/trl",
        packing=True,
        max_length=LENGTH,
        assistant_only_loss=True,
        dataset_num_proc=workers if workers > 1 else None,
        report_to="none",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
    )
    torch.set_num_threads(1)
    prepare_rows, spent = SFTTrainer._prepare_dataset, []

    def timed(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        out = prepare_rows(*args, **kwargs)
        spent.append(time.perf_counter() - begin)
        return out

    SFTTrainer._prepare_dataset = timed
    trainer = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
    packed = trainer.train_dataset
    tokens = sum(len(ids) for ids in packed["input_ids"])
    trained = sum(sum(label != -100 for label in labels) for labels in packed["labels"])
    fill = tokens / (len(packed) * LENGTH)
    return {"seconds": sum(spent), "tokens": tokens, "trained": trained, "fill": fill}


def run(quick: bool) -> dict[str, Any]:
    """50,000 rows (quick: 5,000)."""
    from measure import in_child

    count, cores = (5_000 if quick else 50_000), len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        rows, _, _ = in_child(prepare, folder, count)
        mine, seconds, peak = in_child(ours, folder, cores)
        one, one_seconds, one_peak = in_child(theirs, folder, 1)
        all_cores, all_seconds, all_peak = in_child(theirs, folder, cores)
    best = min((one_seconds, one_peak, one, 1), (all_seconds, all_peak, all_cores, cores))
    peer_seconds, peer_peak, peer, processes = best
    return {
        "bench": "data",
        "case": "preparation",
        "ours": count / seconds,
        "peer": count / peer_seconds,
        "peer_name": f"trl SFTTrainer, packing=True, {processes} processes",
        "unit": "rows/s",
        "ratio": peer_seconds / seconds,
        "ours_peak_mb": peak,
        "peer_peak_mb": peer_peak,
        "ratio_default_processes": one_seconds / seconds,
        "peer_default_peak_mb": one_peak,
        "rows": count,
        "distinct_rows": rows["distinct_rows"],
        "processes": cores,
        "tokens": mine["tokens"],
        "peer_tokens": peer["tokens"],
        "trained_tokens": mine["trained"],
        "peer_trained_tokens": peer["trained"],
        "fill": mine["fill"],
        "peer_fill": peer["fill"],
    }
