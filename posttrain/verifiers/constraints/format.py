"""Bullets, highlights, sections, titles, JSON: what the response looks like."""

from __future__ import annotations

import json
import re

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")

_HIGHLIGHT = re.compile(r"\*([^\n*]*)\*")
_BOLD = re.compile(r"\*\*([^\n*]*)\*\*")


def number_bullet_lists(response: str, num_bullets: int) -> bool:
    """Exactly so many lines that begin with `* ` or `-`; `**bold**` begins none."""
    lines = (line.strip() for line in response.split("\n"))
    bullets = (x for x in lines if x[:1] == "-" or (x[:1] == "*" and x[:2] != "**"))
    return sum(1 for _ in bullets) == num_bullets


def constrained_response(response: str) -> bool:
    """One of IFEval's three fixed answers occurs."""
    return any(option in response for option in OPTIONS)


def number_highlighted_sections(response: str, num_highlights: int) -> bool:
    """At least so many `*highlights*` or `**highlights**` with something in them."""
    found = (m[1].strip() for pattern in (_HIGHLIGHT, _BOLD) for m in pattern.finditer(response))
    return sum(map(bool, found)) >= num_highlights


def multiple_sections(response: str, section_spliter: str, num_sections: int) -> bool:
    """At least so many numbered section marks, as `Section 1`."""
    pattern = re.escape(section_spliter.strip()) + r"\s?[0-9]"
    return sum(1 for _ in re.finditer(pattern, response)) >= num_sections


def json_format(response: str, fences: bool = True) -> bool:
    """The whole response is JSON, inside a Markdown code fence if `fences` are allowed."""
    text = response.strip()
    if fences and text.startswith("```"):
        text = re.sub(r"\A```(?:json)?", "", text, flags=re.IGNORECASE).removesuffix("```")
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def title(response: str) -> bool:
    """A line holds a title in `<<double angular brackets>>`."""
    for line in response.split("\n"):
        _, opened, rest = line.partition("<<")
        inside, closed, _ = rest.rpartition(">>")
        if opened and closed and inside.strip("<> \t"):
            return True
    return False
