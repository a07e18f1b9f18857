"""IFBench (Pyatkin et al. 2025, arXiv:2507.02833): the share of its constraints that are met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from posttrain.formats import Verdict
from posttrain.verifiers.constraints.arguments import OTHER_READERS
from posttrain.verifiers.constraints.ifbench import (
    count,
    custom,
    format,
    ratio,
    sentence,
    words,
)
from posttrain.verifiers.ifeval import Instructions, followed_of, verdict_of

INSTRUCTIONS: dict[str, Callable[..., bool]] = {
    "count:conjunctions": count.conjunctions,
    "count:keywords_multiple": count.keywords_multiple,
    "count:numbers": count.numbers,
    "count:person_names": count.person_names,
    "count:pronouns": count.pronouns,
    "count:punctuation": count.punctuation,
    "count:unique_word_count": count.unique_word_count,
    "count:word_count_range": count.word_count_range,
    "count:words_japanese": count.words_japanese,
    "custom:character_reverse": custom.character_reverse,
    "custom:csv_city": custom.csv_city,
    "custom:csv_quotes": custom.csv_quotes,
    "custom:csv_special_character": custom.csv_special_character,
    "custom:date_format_list": custom.date_format_list,
    "custom:european_capitals_sort": custom.european_capitals_sort,
    "custom:mcq_count_length": custom.mcq_count_length,
    "custom:multiples": custom.multiples,
    "custom:reverse_newline": custom.reverse_newline,
    "custom:sentence_alphabet": custom.sentence_alphabet,
    "custom:word_reverse": custom.word_reverse,
    "format:emoji": format.emoji,
    "format:line_indent": format.line_indent,
    "format:list": format.listed,
    "format:newline": format.newline,
    "format:no_bullets_bullets": format.no_bullets_bullets,
    "format:no_whitespace": format.no_whitespace,
    "format:options": format.options,
    "format:output_template": format.output_template,
    "format:parentheses": format.parentheses,
    "format:quote_unquote": format.quote_unquote,
    "format:quotes": format.quotes,
    "format:sub-bullets": format.sub_bullets,
    "format:thesis": format.thesis,
    "format:title_case": format.title_case,
    "ratio:overlap": ratio.overlap,
    "ratio:sentence_balance": ratio.sentence_balance,
    "ratio:sentence_type": ratio.sentence_type,
    "ratio:sentence_words": ratio.sentence_words,
    "ratio:stop_words": ratio.stop_words,
    "repeat:repeat_change": format.repeat_change,
    "repeat:repeat_simple": format.repeat_simple,
    "repeat:repeat_span": format.repeat_span,
    "sentence:alliteration_increment": sentence.alliteration_increment,
    "sentence:increment": sentence.increment,
    "sentence:keyword": sentence.keyword,
    "words:alphabet": words.alphabet,
    "words:consonants": words.consonants,
    "words:keywords_specific_position": words.keywords_specific_position,
    "words:last_first": words.last_first,
    "words:no_consecutive": words.no_consecutive,
    "words:odd_even_syllables": words.odd_even_syllables,
    "words:palindrome": words.palindrome,
    "words:paragraph_last_first": words.paragraph_last_first,
    "words:prime_lengths": words.prime_lengths,
    "words:repeats": words.repeats,
    "words:start_verb": words.start_verb,
    "words:vowel": words.vowel,
    "words:words_position": words.words_position,
}
OF_IFBENCH = Instructions("ifbench", INSTRUCTIONS, OTHER_READERS)


def followed(completion: str, ground_truth: Any, loose: bool = False) -> list[tuple[str, bool]]:
    """Every constraint and whether it is met; loosely: by any variant. Empty text meets none."""
    return followed_of(OF_IFBENCH, completion, ground_truth, loose)


@dataclass(frozen=True)
class IFBench:
    """The share of the constraints that the response meets, counted strictly."""

    def check_ground_truth(self, ground_truth: Any) -> None:
        OF_IFBENCH.read(ground_truth)

    def __call__(self, completion: str, ground_truth: Any, **row: Any) -> Verdict:
        return verdict_of(followed(completion, ground_truth))
