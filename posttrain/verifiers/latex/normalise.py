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
_COMMAND = r"\\(?:text(?:bf|it|rm|normal)?|mbox|math(?:rm|bf|it)|boldsymbol|bm|operatorname)"
_TEXT = rf"{_COMMAND}\s*\{{([^{{}}]*)\}}"
_WRAPPED = re.compile(rf"{_COMMAND}\s*\{{(.*)\}}")
_POWER = r"(?:\^\{?[0-9]\}?)?\s*\Z"
_AFTER = r"(?:(?<=[0-9})])|(?<=\\pi))"
# Words behind a number that are no unit: they multiply it, tell the time, or are functions.
_NO_UNIT = (
    r"(?!\s*(?:and|or|mod|base|thousand|million|billion|trillion|hundred|dozen|[ap]\.?\s*m\b"
    r"|(?:arc)?(?:sin|cos|tan|cot|sec|csc)|log|ln|exp|sqrt|pi)\b)"
)
_SIGNS = {
    "\u03c0": r"\pi ", "\u221a": r"\sqrt ", "\u221e": r"\infty ", "\u222a": r"\cup ",
    "\u2229": r"\cap ", "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u2264": r"\le ",
    "\u2265": r"\ge ", "\u00b0": "", "\u00b2": "^2", "\u00b3": "^3", "\u2212": "-",
    "\u20ac": "", "\u00a3": "",
}  # fmt: skip
_SIGN = str.maketrans(_SIGNS)

# A double backslash is a row of a matrix; it is kept so that no half of it is read as a space.
_NOISE = re.compile(
    r"(\\\\)(?:\[[^\]]*\])?|\\left(?![a-z])|\\right(?![a-z])"
    r"|\\(?:displaystyle|qquad|quad)(?![a-zA-Z])"
    r"|\\[!,;: ]|\\?[$%]|\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-z]))|\\degree|~"
)
_STEPS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[\s.]+\Z", ""),
        (r"(?<=[0-9])\s*\^?\s*\{?\s*(?:\\(?:text|mathrm)\s*\{?)?(?:st|nd|rd|th)(?![a-z])\}*", ""),
        (rf"(?<=\S)\s*{_TEXT}(?={_POWER})", "\0\\1"),  # the NUL marks what may be a unit
        (_TEXT, r"\1"),
        (rf"{_AFTER}\0{_NO_UNIT}[^0-9\0]*{_POWER}", ""),
        (rf"{_AFTER}\s*(?:square|cubic|sq)?\s*(?:{_UNITS}){_POWER}", ""),
        (rf"{_AFTER}\s+{_NO_UNIT}[a-zA-Z]{{3,}}(?:[\s-]+[a-zA-Z]{{2,}})*{_POWER}", ""),
        (r"\0", " "),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\(?:le|leq|leqslant)(?![a-zA-Z])", r"\\le"),
        (r"\\(?:ge|geq|geqslant)(?![a-zA-Z])", r"\\ge"),
        (r"\\(?:cdot|times)(?![a-zA-Z])", r"\\cdot"),
        (r"bmatrix", "pmatrix"),
        (r"(?<![a-zA-Z\\])(pi|sqrt)(?![a-zA-Z])", r"\\\1 "),
        (r"\*\*", "^"),
        (r"(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "),
        (r"\A[a-zA-Z](?:_\{?\w\}?)?(?:\([a-zA-Z]\))?\s*=(?=[^=]*\Z)", ""),
        (r"\A[a-zA-Z]\s*\\in(?![a-zA-Z])", ""),
        (r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*([0-9a-zA-Z])\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*([0-9a-zA-Z])", r"\1{\2}"),
        (r"\\sqrt\s*([0-9a-zA-Z])", r"\\sqrt{\1}"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"([_^])\{(\w)\}", r"\1\2"),
        (r"(?<=[0-9])\{,\}(?=[0-9])", ","),
        (r"\A(-?[0-9]+) +([0-9]+)/([0-9]+)\Z", r"\1\\frac{\2}{\3}"),
        (r"(\\[a-zA-Z]+) (?=[a-zA-Z])", r"\1~"),  # `\pi r` must not become `\pir`
        (r"(?<=[0-9])\s+(?=[0-9])", "~"),  # nor `3 4` `34`
        (r"\s+", ""),
        (r"~", " "),
        (r"\.\Z", ""),
        (r"(?<![0-9])\.(?=[0-9])", "0."),
        (r"(?<=[0-9])(?:\\cdot ?|\*)(?=[a-zA-Z(]|\\(?!frac))", ""),
        (r"\A\(([A-Za-z])\)\Z", r"\1"),
    )
)
_GROUPED = re.compile(r"-?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|-?[0-9]{1,3}(?: [0-9]{3})+")
_PROSE = re.compile(r"[a-zA-Z]{3}")
_DECIMAL = r"[0-9]{1,30}(?:\.[0-9]{1,30})?"
_RATIONAL = re.compile(
    rf"([+-]?)(?:([0-9]{{1,30}})(?=\\frac))?"
    rf"(?:\\frac\{{([+-]?{_DECIMAL})\}}\{{([+-]?{_DECIMAL})\}}|({_DECIMAL})(?:/({_DECIMAL}))?)"
)


def normalise(text: str) -> str:
    """The answer without spacing, sizes, units, dollar signs and the like."""
    text = _NOISE.sub(lambda match: match[1] or "", " ".join(text.translate(_SIGN).split()))
    text = unwrapped(text.strip())
    for pattern, replacement in _STEPS:
        text = pattern.sub(replacement, text)
    if _GROUPED.fullmatch(text):
        text = text.replace(",", "").replace(" ", "")
    return text.lower() if "\\" not in text and _PROSE.search(text) else text


def unwrapped(text: str) -> str:
    """The inside of `\\mathbf{...}` and the like around a whole answer."""
    while match := _WRAPPED.fullmatch(text):
        if "{" in match[1] and not is_balanced(match[1]):
            break
        text = match[1].strip()
    return text


def is_balanced(text: str) -> bool:
    """Whether every brace closes one that was opened before."""
    depth = 0
    for sign in text:
        depth += (sign == "{") - (sign == "}")
        if depth < 0:
            return False
    return depth == 0


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
