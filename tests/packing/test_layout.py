"""The packed layout, field by field."""

from __future__ import annotations

from posttrain.packing import Group, pack

X = -100


def test_the_layout_of_a_shared_prompt_and_a_row_alone() -> None:
    batch = pack(
        [
            Group([5, 6], [([7, 8], [7, 8]), ([9], [9])], source=1),
            Group([], [([3, 4, 5], [3, X, 5])], source=0),
        ]
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 3, 4, 5]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 2, 0, 1, 2]]
    assert batch["packed_rows"].tolist() == [[0, 1, 2, 3], [0, 1, 4, 0], [5, 6, 7, 0]]
    assert batch["packed_back"].tolist() == [0, 1, 2, 3, 6, 8, 9, 10]
    assert batch["keep"].tolist() == [1, 2, 1, 6]  # the last prompt token predicts both answers
    # a first token without a prompt is not predicted
    assert batch["targets"].tolist() == [7, 8, 9, 5]
    assert batch["segment"].tolist() == [0, 0, 1, 2]
    assert batch["tokens"].tolist() == [2, 1, 1]
    assert batch["source"].tolist() == [1, 1, 0]
    assert batch["last"].tolist() == [3, 4, 7]


def test_gathering_and_putting_back_gives_every_token_its_place() -> None:
    batch = pack([Group([5, 6], [([7, 8, 9], [X] * 3), ([4], [4])]), Group([], [([1], [1])])])
    flat = batch["input_ids"][0][batch["packed_rows"].reshape(-1)]
    assert flat[batch["packed_back"]].tolist() == batch["input_ids"][0].tolist()
