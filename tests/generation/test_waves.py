"""Attention over waves is plain attention over each row alone, whatever has come and gone."""

from __future__ import annotations

import random

import pytest
import torch

from posttrain.generation.waves import Prefill, Wave, fill

HEADS, KEYS, WIDTH = 4, 2, 8


class Reference:
    """Every row's keys and values in lists of their own."""

    def __init__(self, key: torch.Tensor, value: torch.Tensor) -> None:
        self.key, self.value = [key], [value]  # [K, tokens, D] each

    def attend(self, query: torch.Tensor, window: int | None) -> torch.Tensor:
        key, value = torch.cat(self.key, 1), torch.cat(self.value, 1)
        if window is not None:
            key, value = key[:, -window:], value[:, -window:]
        shared = HEADS // KEYS
        key, value = key.repeat_interleave(shared, 0), value.repeat_interleave(shared, 0)
        scores = torch.einsum("hd,hld->hl", query, key) / WIDTH**0.5
        return torch.einsum("hl,hld->hd", scores.softmax(-1), value)


def enter(
    lengths: list[int], copies: int, capacity: int, window: int | None
) -> tuple[Wave, list[Reference]]:
    prefill = Prefill(lengths, torch.device("cpu"))
    total = sum(lengths)
    query = torch.randn(1, HEADS, total, WIDTH)
    key, value = torch.randn(2, 1, KEYS, total, WIDTH)
    prefill(0, query, key, value, window, None)
    references, start = [], 0
    for length in lengths:
        part = slice(start, start + length)
        references += [Reference(key[0, :, part], value[0, :, part]) for _ in range(copies)]
        start += length
    return Wave(prefill, copies, capacity), references


def step(wave: Wave, references: list[Reference], window: int | None) -> None:
    query = torch.randn(len(wave), HEADS, WIDTH)
    key, value = torch.randn(2, len(wave), KEYS, WIDTH)
    wave.grow()
    out = wave.attend(0, query, key, value, window, None)
    for i, reference in enumerate(references):
        reference.key.append(key[i, :, None])
        reference.value.append(value[i, :, None])
        torch.testing.assert_close(out[i], reference.attend(query[i], window))


@pytest.mark.parametrize("window", [None, 5, 9])
@pytest.mark.parametrize("seed", range(4))
def test_rows_come_and_go(seed: int, window: int | None) -> None:
    torch.manual_seed(seed)
    draw = random.Random(seed)
    wave, references = enter([3, 7, 1, 7, 12], 3, 100, window)
    joined = 0
    for _ in range(30):
        step(wave, references, window)
        if draw.random() < 0.4 and len(wave) > 2:
            alive = torch.tensor([draw.random() < 0.7 for _ in range(len(wave))])
            alive[draw.randrange(len(wave))] = True
            references = [references[i] for i in wave.keep(alive).tolist()]
        if len(wave) < 8:
            younger, others = enter([2, 15, 6], 2, 100, window)
            for _ in range(draw.randrange(3)):
                step(younger, others, window)
            wave.join(younger)
            references += others
            joined += 1
    assert joined > 1


@pytest.mark.parametrize("window", [None, 5])
def test_columns_that_no_row_is_old_enough_for_are_dropped(window: int | None) -> None:
    wave, _ = enter([4, 8], 2, 10, window)
    for _ in range(3):
        wave.grow()
    younger, references = enter([6], 3, 10, window)
    step(younger, references, window)
    wave.join(younger)
    assert wave.columns == 3
    order = wave.keep(torch.tensor([False] * 4 + [True] * 3))
    assert wave.columns == 1
    assert not wave.mixed
    for _ in range(9):  # as many as there is room for, counted from the youngest
        step(wave, [references[i - 4] for i in order], window)


def test_room_for_own_tokens_grows_as_it_is_needed() -> None:
    wave, references = enter([2, 4], 1, 150, None)
    for _ in range(150):
        step(wave, references, None)
    assert wave.layers[0].own_key.shape[2] == 150


def test_a_prompt_is_remembered_once_and_forgotten_with_its_last_row() -> None:
    wave, references = enter([3, 9, 5], 4, 20, None)
    step(wave, references, None)
    assert wave.layers[0].prompt_key.shape == (3, KEYS, 9, WIDTH)
    assert wave.layers[0].own_key.shape[0] == 12
    alive = torch.ones(12, dtype=torch.bool)
    alive[4:8] = False  # all rows of the longest prompt
    order = wave.keep(alive)
    assert sorted(order.tolist()) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert sorted(wave.lengths.tolist()) == [3, 5]
    assert wave.longest == 5
    step(wave, [references[i] for i in order], None)


def test_the_last_take_the_places_of_those_gone() -> None:
    alive = torch.tensor([True, False, True, False, True, True])
    order, holes, movers = fill(alive)
    assert (order.tolist(), holes.tolist(), movers.tolist()) == ([0, 4, 2, 5], [1, 3], [4, 5])
