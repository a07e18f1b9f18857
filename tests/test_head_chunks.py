"""Log-probs from a head in chunks: those of whole logits, gradients too, and never whole logits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from posttrain.head.chunks import (
    CHUNK,
    HELD,
    Answer,
    Later,
    Sums,
    chunked_answer,
    one_factor,
    whole_answer,
)
from posttrain.head.softmax import Form

K, H, V, R = 13, 6, 50, 2
FORMS = {
    "plain": Form(),
    "temperature": Form(temperature=0.7),
    "scale": Form(scale=0.0625),
    "cap": Form(cap=2.0),
    "z-loss": Form(z_loss=0.01),
    "all": Form(scale=0.5, cap=3.0, temperature=1.3, z_loss=0.02),
}
TARGETS = torch.randint(0, V, (K,), generator=torch.Generator().manual_seed(5))
WEIGHTS = torch.linspace(-1, 2, K)
EXACT = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of five, four and four positions."""
    monkeypatch.setitem(CHUNK, "cpu", 5 * V)


def inputs(seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Any]:
    torch.manual_seed(seed)
    shapes = ((K, H), (V, H), (V,))
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


def whole(hidden: Any, weight: Any, bias: Any, targets: Any, form: Form) -> torch.Tensor:
    """The same by the book."""
    logits = hidden @ weight.t() + (0 if bias is None else bias)
    return whole_answer(form.after(logits) / form.temperature, targets, form.z_loss).logps


def chunked(hidden: Any, weight: Any, bias: Any, targets: Any, form: Form, weights: Any) -> Any:
    return chunked_answer([(hidden, weight)], bias, targets, weights, form).logps


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("announced", [True, False], ids=["weights known", "unknown"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "trained"])
def test_values_and_gradients_are_those_of_whole_logits(
    form: Form, announced: bool, bias: bool, frozen: bool
) -> None:
    ours, plain = inputs(), inputs()
    for side in (ours, plain):
        side[1].requires_grad_(not frozen)
        side[2] = side[2].detach().requires_grad_(not frozen) if bias else None
    got = chunked(*ours, TARGETS, form, WEIGHTS if announced else None)
    expected = whole(*plain, TARGETS, form)
    torch.testing.assert_close(got, expected, **EXACT)
    for logps in (got, expected):
        (0.5 * (logps * WEIGHTS).sum()).backward()
    for mine, theirs in zip(ours, plain, strict=True):
        if mine is not None and mine.requires_grad:
            torch.testing.assert_close(mine.grad, theirs.grad, **EXACT)
        elif mine is not None:
            assert mine.grad is None


def test_a_hand_computed_value() -> None:
    """Logits [0, ln 3] -> probabilities [1/4, 3/4]; d log p(1) / d z = [-1/4, 1/4]."""
    hidden = torch.ones(1, 1, requires_grad=True)
    weight = torch.tensor([[0.0], [3.0]]).log1p().mul(0).requires_grad_()
    weight.data = torch.tensor([[0.0], [float(torch.tensor(3.0).log())]])
    logp = chunked_answer([(hidden, weight)], None, torch.tensor([1])).logps
    logp.sum().backward()
    assert logp.exp().item() == pytest.approx(0.75)
    assert weight.grad.flatten().tolist() == pytest.approx([-0.25, 0.25])


@pytest.mark.parametrize(("announced", "frozen", "times"), [(1, 0, 1), (0, 1, 1), (0, 0, 2)])
def test_logits_are_computed_again_only_where_they_must_be(
    monkeypatch: pytest.MonkeyPatch, announced: int, frozen: int, times: int
) -> None:
    rows = []
    made = Sums.logits
    monkeypatch.setattr(
        Sums, "logits", lambda s, p, f: rows.append(len(s.inputs[0][p])) or made(s, p, f)
    )
    hidden, weight, _ = inputs()
    weight.requires_grad_(not frozen)
    logps = chunked(hidden, weight, None, TARGETS, Form(), WEIGHTS if announced else None)
    (logps * WEIGHTS).sum().backward()
    assert sum(rows) == times * K
    assert max(rows) == 5


class Largest(TorchDispatchMode):
    """Notes the most elements that any tensor has."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("announced", [True, False])
def test_logits_never_stand_whole(announced: bool) -> None:
    hidden, weight, _ = inputs()
    with Largest() as seen:
        logps = chunked(hidden, weight, None, TARGETS, Form(), WEIGHTS if announced else None)
        (logps * WEIGHTS).sum().backward()
    assert seen.elements == V * H < K * V  # the weight's gradient is the largest
    with Largest() as seen:
        whole(hidden, weight, None, TARGETS, Form())
    assert seen.elements == K * V


def test_a_loss_that_was_announced_wrongly_is_an_error() -> None:
    hidden, weight, bias = inputs()
    logps = chunked(hidden, weight, bias, TARGETS, Form(), WEIGHTS)
    with pytest.raises(RuntimeError, match="no multiple of the weighted sum"):
        logps.square().sum().backward()


def test_gradients_are_used_once() -> None:
    hidden, weight, bias = inputs()
    loss = (chunked(hidden, weight, bias, TARGETS, Form(), WEIGHTS) * WEIGHTS).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="used already: no second backward"):
        loss.backward()


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "bfloat16 weights"])
def test_bfloat16_is_reduced_in_fp32(announced: bool, autocast: bool) -> None:
    exact = inputs()
    ours = inputs() if autocast else [x.detach().bfloat16().requires_grad_() for x in exact]
    expected = whole(*exact, TARGETS, Form())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got = chunked(*ours, TARGETS, Form(), WEIGHTS if announced else None)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=0.06)
    for logps in (got, expected):
        (logps * WEIGHTS).sum().backward()
    for mine, theirs in zip(ours, exact, strict=True):
        assert mine.grad.dtype == mine.dtype
        assert (mine.grad.float() - theirs.grad).norm() < 0.02 * theirs.grad.norm()


# --- two products: adapters on the head -----------------------------------------------------------


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("announced", [True, False], ids=["weights known", "unknown"])
def test_a_second_product_of_low_rank(form: Form, announced: bool) -> None:
    """Frozen weights, trained adapters: the logits are those of the merged head."""
    sides = []
    for _ in range(2):
        hidden, weight, bias = inputs()
        down, up = torch.randn(R, H).requires_grad_(), torch.randn(V, R).requires_grad_()
        sides.append((hidden, weight.detach(), bias.detach(), down, up))
    hidden, weight, bias, down, up = sides[0]
    known = WEIGHTS if announced else None
    products = [(hidden, weight), (hidden @ down.t() * 0.5, up)]
    got = chunked_answer(products, bias, TARGETS, known, form).logps
    h, w, b, a, u = sides[1]
    with torch.no_grad():
        a.copy_(down), u.copy_(up)
    expected = whole(h, w + 0.5 * u @ a, b, TARGETS, form)
    torch.testing.assert_close(got, expected, **EXACT)
    for logps in (got, expected):
        (logps * WEIGHTS).sum().backward()
    for mine, theirs in ((hidden, h), (down, a), (up, u)):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-6, atol=1e-5)


# --- what else is asked of a head -----------------------------------------------------------------


def test_a_z_loss_by_hand() -> None:
    """Logits [0, ln 3]: lse = ln 4, and its square has the gradient 2 ln 4 [1/4, 3/4]."""
    hidden = torch.ones(1, 1)
    weight = torch.tensor([[0.0], [math.log(3)]]).requires_grad_()
    answer = chunked_answer([(hidden, weight)], None, torch.tensor([1]), None, Form(z_loss=0.1))
    assert answer.logps.item() == pytest.approx(math.log(0.75) - 0.1 * math.log(4) ** 2)
    answer.logps.sum().backward()
    slope = 0.2 * math.log(4)
    expected = [-0.25 - slope / 4, 0.25 - slope * 3 / 4]
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("form", [Form(), FORMS["cap"]])
def test_collision_is_the_logarithm_of_the_sum_of_squares(form: Form) -> None:
    hidden, weight, bias = inputs()
    found = chunked_answer([(hidden, weight)], bias, TARGETS, None, form, collision=True)
    logits = form.after(hidden @ weight.t() + bias)
    expected = logits.softmax(-1).square().sum(-1).log()
    assert found.collision is not None
    torch.testing.assert_close(found.collision, expected.detach(), **EXACT)
    plain = whole_answer(logits, TARGETS, collision=True)
    torch.testing.assert_close(found.collision, plain.collision, **EXACT)
    assert not found.collision.requires_grad
    assert found.logps.requires_grad


def test_no_position_at_all() -> None:
    hidden, weight, bias = inputs()
    none = torch.zeros(0)
    for weights in (none, None):
        weight.grad = None
        found = chunked_answer([(hidden[:0], weight)], bias, TARGETS[:0], weights)
        found.logps.sum().backward()
        assert weight.grad is not None
        assert weight.grad.abs().sum() == 0


# --- gradients that are not finite ----------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("all_of_them", [True, False])
def test_a_gradient_that_is_not_finite_passes_and_spoils_all(bad: float, all_of_them: bool) -> None:
    """The trainers' guard then sees a norm that is not finite, and skips the step."""
    hidden, weight, bias = inputs()
    logps = chunked(hidden, weight, bias, TARGETS, Form(), WEIGHTS)
    grad = torch.full((K,), bad) if all_of_them else WEIGHTS.clone()
    grad[3] = bad
    assert not one_factor(grad, WEIGHTS).isfinite()
    logps.backward(grad)
    for tensor in (hidden, weight, bias):
        assert not tensor.grad.isfinite().any()


def test_zero_is_a_multiple_of_anything() -> None:
    hidden, weight, bias = inputs()
    (chunked(hidden, weight, bias, TARGETS, Form(), WEIGHTS) * 0).sum().backward()
    assert weight.grad.abs().sum() == 0


ENDS = [2, 3, 9, 13]  # blocks of 2, 1, 6 and 4 positions; 2 and 3 fit into one chunk together


def settled(logps: torch.Tensor, ends: list[int]) -> torch.Tensor:
    """A loss that is a sum over blocks, each no linear function of its log-probs."""
    bounds = zip([0, *ends], ends, strict=False)
    return torch.stack([torch.sigmoid(0.3 * logps[a:b].sum()) for a, b in bounds]).sum()


def weigher(seen: list[slice]) -> Later:
    def weigh(answer: Answer, block: slice) -> torch.Tensor:
        seen.append(block)
        inner = [end - block.start for end in ENDS if block.start < end <= block.stop]
        with torch.enable_grad():
            logps = answer.logps.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(settled(logps, inner), logps)
        return gradient

    return Later(ENDS, weigh)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("held", [100, 4, 0])
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "trained"])
def test_a_gradient_that_is_known_block_by_block(
    monkeypatch: pytest.MonkeyPatch, form: Form, held: int, frozen: bool
) -> None:
    monkeypatch.setitem(HELD, "cpu", held * V)
    ours, plain, seen = inputs(), inputs(), []
    for side in (ours, plain):
        side[1].requires_grad_(not frozen)
        side[2].requires_grad_(not frozen)
    got = chunked(*ours, TARGETS, form, weigher(seen))
    expected = whole(*plain, TARGETS, form)
    torch.testing.assert_close(got, expected, **EXACT)
    for logps in (got, expected):
        (2.5 * settled(logps, ENDS)).backward()
    for mine, theirs in zip(ours, plain, strict=True):
        if mine.requires_grad:
            torch.testing.assert_close(mine.grad, theirs.grad, **EXACT)
    assert seen == ([] if frozen else [slice(0, 3), slice(3, 9), slice(9, 13)])


@pytest.mark.parametrize(("held", "again"), [(100, 0), (5, 6), (0, 13)])
def test_logits_of_a_block_are_kept_until_its_gradient_is_known(
    monkeypatch: pytest.MonkeyPatch, held: int, again: int
) -> None:
    """Blocks of 3, 6 and 4 positions; those that may not be kept are computed twice."""
    monkeypatch.setitem(HELD, "cpu", held * V)
    rows: list[int] = []
    made = Sums.logits
    monkeypatch.setattr(
        Sums, "logits", lambda s, p, f: rows.append(len(s.inputs[0][p])) or made(s, p, f)
    )
    hidden, weight, _ = inputs()
    settled(chunked(hidden, weight, None, TARGETS, Form(), weigher([])), ENDS).backward()
    assert sum(rows) == K + again and max(rows) <= 5


def test_another_gradient_than_the_blocks_announced_is_refused() -> None:
    hidden, weight, _ = inputs()
    logps = chunked(hidden, weight, None, TARGETS, Form(), weigher([]))
    with pytest.raises(RuntimeError, match="announced"):
        logps[:3].sum().backward()
