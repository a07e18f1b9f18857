"""Rows of a transcript file -> cards. The texts are hostile: only the template may print them."""

from __future__ import annotations

from typing import Any

from posttrain.evals.report.folder import Transcripts, as_number

OPEN_BELOW = 700
OPEN_LINES = 20


def sheet(transcripts: Transcripts, limit: int) -> dict[str, Any]:
    """The transcripts of one task, cut to `limit` characters per text."""
    cards = [card(row, limit) for row in transcripts.rows]
    if cards:
        cards[0]["open"] = True
    return {"task": transcripts.task, "total": transcripts.total, "cards": cards}


def card(row: dict[str, Any], limit: int) -> dict[str, Any]:
    """One transcript with its verdict: a mark and a word, never colour alone."""
    score = as_number(row.get("score"))
    kind, mark, word = verdict(score)
    prompt = row.get("prompt")
    messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    turns = [
        (str(m.get("role", "?")), shorten(as_text(m.get("content")), limit))
        for m in messages
        if isinstance(m, dict)
    ]
    completion = shorten(as_text(row.get("completion")), limit)
    texts = [*(text for _, text in turns), completion]
    is_short = sum(map(len, texts)) < OPEN_BELOW and "".join(texts).count("\n") < OPEN_LINES
    return {
        "kind": kind,
        "mark": mark,
        "word": word,
        "score": "" if score is None else f"{score:.2f}",
        "reason": shorten(as_text(row.get("reason")), 1000),
        "truth": shorten(as_text(row.get("ground_truth")), 1000),
        "turns": turns,
        "title": " ".join(turns[-1][1].split())[:160] if turns else "",
        "completion": completion,
        "open": is_short,
    }


def verdict(score: float | None) -> tuple[str, str, str]:
    """A class, a mark and a word for a score."""
    if score is None:
        return "unknown", "?", "no score"
    if score >= 1:
        return "right", "✓", "right"
    return ("wrong", "✗", "wrong") if score <= 0 else ("partly", "◐", "partly right")


def shorten(text: str, limit: int) -> str:
    """Keep the head and, because the answer stands at the end, as much of the tail."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{text[-half:]}"


def as_text(value: Any) -> str:
    """A value as text; nothing for nothing."""
    return "" if value is None else str(value)
