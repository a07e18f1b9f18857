"""One spelling for LaTeX answers that differ only in how they are written.

The rules are those that graders of MATH (Hendrycks et al. 2021, arXiv:2103.03874) agree on.
Inputs are short (the caller bounds them); nothing is evaluated.
"""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS = (
    "units?|degrees?|dollars?|cents?|percent|cm|mm|km|inch(?:es)?|feet|foot|ft|miles?|mph"
    "|(?:centi|kilo|milli)?met(?:er|re)s?|seconds?|minutes?|hours?|days?|weeks?|months?|years?"
)
_TEXT = r"\\(?:text(?:bf|it|rm|normal)?|mbox|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}"

# A double backslash is a row of a matrix; it is kept so that no half of it is read as a space.
_NOISE = re.compile(
    r"(\\\\)|\\left(?![a-z])|\\right(?![a-z])|\\(?:displaystyle|qquad|quad)(?![a-zA-Z])"
    r"|\\[!,;: ]|\\?[$%]|\^\s*\{?\s*\\circ\s*\}?|\\degree|~"
)
_STEPS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"(?<=\S)\s*{_TEXT}(?:\^\{{?[0-9]\}}?)?\s*\Z", r" \1"),
        (_TEXT, r"\1"),
        (rf"(?<=[0-9}}])\s*(?:square|cubic|sq)?\s*(?:{_UNITS})(?:\^\{{?[0-9]\}}?)?\s*\Z", ""),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\(?:le|leq|leqslant)(?![a-zA-Z])", r"\\le"),
        (r"\\(?:ge|geq|geqslant)(?![a-zA-Z])", r"\\ge"),
        (r"\\(?:cdot|times)(?![a-zA-Z])", r"\\cdot"),
        (r"\u2212", "-"),
        (r"\A[a-zA-Z](?:_\{?\w\}?)?\s*=(?=[^=]*\Z)", ""),
        (r"\A[a-zA-Z]\s*\\in(?![a-zA-Z])", ""),
        (r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*([0-9a-zA-Z])\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*([0-9a-zA-Z])", r"\1{\2}"),
        (r"\\sqrt\s*([0-9a-zA-Z])", r"\\sqrt{\1}"),
        (r"([_^])\{(\w)\}", r"\1\2"),
        (r"(?<=[0-9])\{,\}(?=[0-9])", ","),
        (r"(\\[a-zA-Z]+) (?=[a-zA-Z])", r"\1~"),  # `\pi r` must not become `\pir`
        (r"\s+", ""),
        (r"~", " "),
        (r"\.\Z", ""),
        (r"(?<![0-9])\.(?=[0-9])", "0."),
        (r"\A\(([A-Za-z])\)\Z", r"\1"),
    )
)
_GROUPED = re.compile(r"-?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_DECIMAL = r"[0-9]{1,30}(?:\.[0-9]{1,30})?"
_RATIONAL = re.compile(
    rf"([+-]?)(?:([0-9]{{1,30}})(?=\\frac))?"
    rf"(?:\\frac\{{([+-]?{_DECIMAL})\}}\{{([+-]?{_DECIMAL})\}}|({_DECIMAL})(?:/({_DECIMAL}))?)"
)


def normalise(text: str) -> str:
    """The answer without spacing, sizes, units, dollar signs and the like."""
    text = _NOISE.sub(lambda match: match[1] or "", " ".join(text.split()))
    for pattern, replacement in _STEPS:
        text = pattern.sub(replacement, text)
    if _GROUPED.fullmatch(text):
        text = text.replace(",", "")
    return text.lower() if len(text) > 1 and text.isalpha() else text


def rational(text: str) -> Fraction | None:
    """The value of a normalised integer, decimal, fraction or mixed number; else `None`."""
    match = _RATIONAL.fullmatch(text)
    if not match:
        return None
    sign, whole, top, bottom, number, divisor = match.groups()
    numerator, denominator = Fraction(top or number), Fraction(bottom or divisor or 1)
    if denominator == 0:
        return None
    value = Fraction(whole or 0) + numerator / denominator
    return -value if sign == "-" else value
