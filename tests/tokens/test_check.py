"""What stops a run before it trains."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from posttrain.errors import DataError, ModelError
from posttrain.tokens import check_tokenizer, check_trained

FINE = {"rows": 2, "trained_tokens": 5, "without_eos": 1}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"eos_token_id": None}, "'m' has no EOS token.*set `eos_token`"),
        ({"is_fast": False}, "'m' is a slow one"),
        ({"chat_template": None}, "'m' has no chat template; set `chat_template:`.*llama-3"),
    ],
)
def test_tokenizers(change: dict[str, Any], why: str) -> None:
    good = {"eos_token_id": 1, "is_fast": True, "chat_template": "x", "name_or_path": "m"}
    check_tokenizer(SimpleNamespace(**good))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=why):
        check_tokenizer(SimpleNamespace(**good | change))  # type: ignore[arg-type]
    check_tokenizer(
        SimpleNamespace(**good | {"chat_template": None}),  # type: ignore[arg-type]
        needs_template=False,
    )


@pytest.mark.parametrize(
    ("rows", "counts", "why"),
    [
        (0, {"a": {}}, "no row is left to train on .3 rows: too long; 1 rows: empty"),
        (2, {"a": FINE, "b": {"rows": 1}}, "source 'b': no token is trained .1 rows: empty"),
        (2, {"a": FINE | {"without_eos": 2}}, "EOS is not trained in any row"),
    ],
)
def test_tokens_that_teach_nothing(rows: int, counts: Any, why: str) -> None:
    dropped = {"a": {"too long": 3}, "b": {"empty": 1}}
    check_trained(2, {"a": FINE}, dropped, "conversation")
    with pytest.raises(DataError, match=why):
        check_trained(rows, counts, dropped, "conversation")


def test_problems_train_no_token_of_their_own() -> None:
    check_trained(1, {"a": {"rows": 1}}, {}, "problem")
    with pytest.raises(DataError, match="the sources are empty"):
        check_trained(0, {}, {}, "problem")


def test_a_pair_has_two_answers_of_which_one_may_end() -> None:
    check_trained(2, {"a": FINE | {"without_eos": 3}}, {}, "preference")
    with pytest.raises(DataError, match="EOS is not trained in any row"):
        check_trained(2, {"a": FINE | {"without_eos": 4}}, {}, "preference")
