"""`custom:`: the prompts of IFBench that stand alone."""

from __future__ import annotations

import csv
import io
import re
import string
import unicodedata
from itertools import pairwise

from posttrain.verifiers.constraints.ifbench.tokens import PUNCTUATION, split_sentences

_QUESTION = re.compile(r"\n*Question \d+[.|):;]?\s*")
_OPTION = re.compile(r"[A-Ea-e][.|)]\s*\w+")
_CITY = ["ID", "Country", "City", "Year", "Count"]
_PRODUCT = ("ProductID", "Category", "Brand", "Price", "Stock")
_STUDENT = ("StudentID", "Subject", "Grade", "Semester", "Score")
_SPECIAL = re.compile(r'".*[^\d\w\s].*"')
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_CAPITALS = """
Reykjavik, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, Dublin,
Berlin, Amsterdam, Warsaw, London, Brussels, Prague, Luxembourg, Paris, Vienna, Bratislava,
Budapest, Vaduz, Chisinau, Bern, Ljubljana, Zagreb
"""
CAPITALS = [name.strip() for name in _CAPITALS.split(",")]


def plain(text: str) -> str:
    """Without accents and whatever else is not ASCII."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def multiples(response: str) -> bool:
    """The multiples of 7 from 10 to 50 and no other number."""
    return re.findall(r"\d+", response) == [str(n) for n in range(14, 51, 7)]


def mcq_count_length(response: str) -> bool:
    """Four questions with five options each, every question longer than the one before."""
    response = response.strip()
    if not response.startswith("Question"):
        return False
    questions = [q.strip() for q in _QUESTION.split(response) if q.strip()]
    lengths = []
    for question in questions:
        lines = [line.strip() for line in question.split("\n")]
        is_option = [_OPTION.match(line) is not None for line in lines]
        if sum(is_option) != 5:
            return False
        lengths.append(len(" ".join(lines[: is_option.index(True)]).strip()))
    return len(questions) == 4 and all(a < b for a, b in pairwise(lengths))


def reverse_newline(response: str) -> bool:
    """From Zimbabwe on at least 52 lines in reverse alphabetical order."""
    lines = [plain(x) for line in response.split("\n") if (x := line.strip(PUNCTUATION))]
    start = next((i for i, line in enumerate(lines) if "Zimbabwe" in line), len(lines))
    return len(lines) - start >= 52 and lines[start:] == sorted(lines[start:], reverse=True)


def word_reverse(response: str) -> bool:
    """Read from the last word to the first it speaks of the bald eagle."""
    text = response.lower().translate(str.maketrans("", "", string.punctuation))
    return "bald eagle" in " ".join(text.split()[::-1])


def character_reverse(response: str) -> bool:
    return "elgae dlab" in response.lower()


def sentence_alphabet(response: str) -> bool:
    """26 sentences whose first letters are the alphabet."""
    sentences = [s.lstrip(string.punctuation + " \n\t") for s in split_sentences(response)]
    return [s[:1].lower() for s in sentences] == list(string.ascii_lowercase)


def european_capitals_sort(response: str) -> bool:
    return [c.strip() for c in plain(response).split(",") if c.strip()] == CAPITALS


def csv_city(response: str) -> bool:
    """The header and seven rows of five fields."""
    rows = table(response.strip())
    return len(rows) == 8 and rows[0] == _CITY and all(len(row) == 5 for row in rows)


def csv_special_character(response: str) -> bool:
    """The header and fourteen rows; a field with a special character stands in quotes."""
    response = response.strip()
    if not is_header(response, _PRODUCT, ",[ \\t]*"):
        return False
    rows = table(response.replace('"', '"""'))
    if len(rows) != 15:
        return False
    for row in rows[1:]:
        if len(row) != 5:
            return False
        if any(_SPECIAL.match(field) for field in row):
            return True
    return False


def csv_quotes(response: str) -> bool:
    """The header and three rows, divided by tabs, every field in quotes."""
    response = response.strip()
    if not is_header(response, _STUDENT, "\\t *"):
        return False
    rows = table(response.replace('"', '"""'), "\t")
    fields = [field.strip() for row in rows for field in row]
    quoted = all(len(f) > 1 and f[0] == f[-1] == '"' for f in fields)
    return len(rows) == 4 and all(len(row) == 5 for row in rows) and quoted


def table(text: str, delimiter: str = ",") -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:
        return []


def is_header(text: str, names: tuple[str, ...], divider: str) -> bool:
    pattern = divider.join(f'(?:{name}|"{name}")' for name in names)
    return re.fullmatch(pattern, text.split("\n")[0].strip()) is not None


def date_format_list(response: str) -> bool:
    """Dates of Napoleon's life as YYYY-MM-DD, divided by commas."""
    for date in response.strip().split(","):
        found = re.fullmatch(r"(\d{4})-(\d{2})-(\d{2})", date.strip(), re.ASCII)
        if not found:
            return False
        year, month, day = map(int, found.groups())
        if not (1769 <= year <= 1821 and 1 <= month <= 12 and 1 <= day <= _DAYS[month - 1]):
            return False
    return True
