"""Whether weights in a folder are those of the model that is served.

vLLM does not ask: it fills what it can, leaves the rest as it was, and answers with the mixture.
"""

from __future__ import annotations

import json
from pathlib import Path

TIED = "lm_head.weight"  # written or not where it is the embedding


def shapes(folder: str) -> dict[str, list[int]]:
    """Names and shapes of the tensors in the safetensors files of a folder."""
    from safetensors import safe_open

    found: dict[str, list[int]] = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            names = list(tensors.keys())
            found |= {name: list(tensors.get_slice(name).get_shape()) for name in names}
    return found


def unlike(folder: str, known: dict[str, list[int]]) -> str:
    """How the tensors of a folder differ from those of the model; empty: they do not."""
    new = shapes(folder)
    if not new:
        return f"{folder} holds no safetensors file; server and trainer have to share that folder"
    config = Path(folder, "config.json")
    tied = config.is_file() and json.loads(config.read_text()).get("tie_word_embeddings")
    return differ(new, known, tied=bool(tied))


def differ(new: dict[str, list[int]], known: dict[str, list[int]], *, tied: bool) -> str:
    """How names and shapes differ from those of the model; empty: they do not."""
    for name in sorted(new.keys() | known.keys()):
        if name.endswith("inv_freq") or (tied and name == TIED):
            continue
        ours, theirs = new.get(name, "not there"), known.get(name, "not there")
        if ours != theirs:
            return (
                f"{name} is {ours} and was {theirs} in the checkpoint that the server started "
                "from; start it from weights of these names and shapes"
            )
    return ""
