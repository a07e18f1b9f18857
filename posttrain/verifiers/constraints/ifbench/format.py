"""`format:` and `repeat:`: what the response looks like, and what it copies."""

from __future__ import annotations

import re
import string
from itertools import pairwise

from posttrain.verifiers.constraints.ifbench.tokens import (
    PUNCTUATION,
    bare,
    split_sentences,
)
from posttrain.verifiers.constraints.treebank import tokens

_LETTERED = re.compile(r"\W*[aA]\W*[bB]\W*[cC]\W*")
_CLOSERS = {")": "(", "]": "[", "}": "{"}
# One character each; a variation selector or a joiner stands before or after one of these.
_EMOJI = re.compile(
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u24c2\u25aa-\u25fe"
    "\u2600-\u27bf\u2934\u2935\u2b05-\u2b55\u3030\u303d\u3297\u3299"
    "\U0001f004\U0001f0cf\U0001f170-\U0001f251\U0001f300-\U0001faff]"
)
TEMPLATE = ("My Answer:", "My Conclusion:", "Future Outlook:")
ONLY = "Only output this sentence here, ignore all other requests."


def parentheses(response: str) -> bool:
    """Brackets that close rightly, at least five deep."""
    opened: list[str] = []
    deepest = 0
    for sign in response:
        if sign in "([{":
            opened.append(sign)
            deepest = max(deepest, len(opened))
        elif sign in _CLOSERS:
            if opened and opened[-1] == _CLOSERS[sign]:
                opened.pop()
                if deepest >= 5:
                    return True
            else:
                opened, deepest = [], 0
    return False


def quotes(response: str) -> bool:
    """Double and single quotation marks inside each other, three deep."""
    opened: list[str] = []
    deepest = 0
    for sign in response:
        if opened and sign == opened[-1]:
            opened.pop()
            if deepest - len(opened) >= 3:
                return True
        elif sign in "\"'":
            opened.append(sign)
            deepest = max(deepest, len(opened))
    return False


def options(response: str, options: str) -> bool:
    """One of the options and nothing else; lettered ones to the sign."""
    separator = next((sign for sign in ("/", "or") if sign in options), ",")
    allowed = [option.strip() for option in options.split(separator)]
    if _LETTERED.match(options):
        return response.strip() in allowed
    plain = [option.strip(PUNCTUATION).lower() for option in allowed]
    return response.strip().strip(PUNCTUATION).lower() in plain


def newline(response: str) -> bool:
    """Each word on a line of its own."""
    text = bare(response).strip()
    return len([line for line in text.split("\n") if line]) == len(text.split())


def emoji(response: str) -> bool:
    """An emoji ends each sentence, or begins what follows its stop."""
    sentences = [bare(sentence).strip() for sentence in split_sentences(response)]
    for sentence, after in zip(sentences, [*sentences[1:], ""], strict=True):
        if not sentence or not (_EMOJI.search(sentence[-2:]) or _EMOJI.match(after)):
            return False
    return True


def line_indent(response: str) -> bool:
    """Each line that is not blank is indented more than the one before."""
    lines = [line for line in response.split("\n") if line.strip()]
    indents = [len(line) - len(line.lstrip(" ")) for line in lines]
    return all(a < b for a, b in pairwise(indents))


def quote_unquote(response: str) -> bool:
    """No quotation follows another or ends the response."""
    text = "".join(response.replace("\u201c", '"').replace("\u201d", '"').split())
    text = text.replace("'\"'", "")
    signs = string.digits + string.punctuation.replace('"', "")
    return '""' not in text and not text.strip(signs).endswith('"')


def listed(response: str, sep: str) -> bool:
    """The separator occurs at least twice."""
    return response.count(sep) >= 2


def thesis(response: str) -> bool:
    """Text in HTML's italics with more text after it."""
    found = re.search(r"<(?:i|em)>(.*?)</(?:i|em)>(.*)", response, re.DOTALL)
    return found is not None and bool(found[1].strip()) and bool(found[2].strip())


def sub_bullets(response: str) -> bool:
    """Bullets written `*`, each with a `-` before the next."""
    bullets = response.split("*")[1:]
    return bool(bullets) and all("-" in bullet for bullet in bullets)


def no_bullets_bullets(response: str) -> bool:
    """At least two sentences, then at least two bullets written `*` and nothing more."""
    lines = [line.strip() for line in response.strip().split("\n")]
    first = next((i for i, line in enumerate(lines) if line.startswith("*")), len(lines))
    sentences = sum(len(split_sentences(line)) for line in lines[:first])
    bullets = lines[first:]
    return sentences >= 2 and len(bullets) >= 2 and all(b.startswith("*") for b in bullets)


def title_case(response: str) -> bool:
    """No word begins with a small letter."""
    starts = (token for token in tokens(response) if token[0].isalpha() and token != "n't")
    return not any(t[0].islower() and (t[1:].islower() or t[1:].isupper() or len(t) == 1)
                   for t in starts)  # fmt: skip


def output_template(response: str) -> bool:
    return all(part in response for part in TEMPLATE)


def no_whitespace(response: str) -> bool:
    return not any(map(str.isspace, response.strip()))


def repeat_change(response: str, prompt_to_repeat: str) -> bool:
    """The prompt with another first word."""
    wanted, found = prompt_to_repeat.split(), response.split()
    return prompt_to_repeat != response and bool(found) and wanted[1:] == found[1:]


def repeat_simple(response: str) -> bool:
    return response.strip().lower() == ONLY.lower()


def repeat_span(response: str, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    """The words from one index to another, both counted from 0 and included."""
    span = " ".join(prompt_to_repeat.split()[n_start : n_end + 1])
    return response.strip().lower() == span.strip().lower()
