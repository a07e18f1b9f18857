"""The parts of the Tülu mixtures by their public ids: counts, licences, and how rows are written.

Counts are those of the papers and the published configurations: Tülu 1 arXiv:2306.04751, 2
arXiv:2311.10702, 2.5 arXiv:2406.09279, 3 arXiv:2411.15124 (tables 7 and 15). A part that was
published only inside its mixture names the mixture and the column value that picks it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

Format = str | Mapping[str, Any]
V1, V2 = "allenai/tulu-v1-sft-mixture", "allenai/tulu-v2-sft-mixture"
PAIRS = "allenai/tulu-2.5-preference-data"


@dataclass(frozen=True)
class Part:
    """One data set of a mixture.

    Attributes:
        path: public hub id.
        rows: rows that the mixture takes; `None`: no source tells.
        licence: what the id says of itself, `None` where it says nothing; a mixture's card may
            differ (Tülu 2's gives none for WizardLM, Tülu 3's Apache-2.0 for WildGuardMix).
        split: split to read.
        config: configuration, the recipe's `name`.
        data_files: files to read inside the id.
        format: how rows are written, the recipe's `format`.
        decontaminated: id of the published copy without overlaps with the evaluations.
        note: what differs from the mixture that was trained on.
    """

    path: str
    rows: int | None = None
    licence: str | None = None
    split: str = "train"
    config: str | None = None
    data_files: str | None = None
    format: Format = "chat"
    decontaminated: str | None = None
    note: str = ""


def _of(*names: str) -> Format:
    wanted = list(names) if len(names) > 1 else names[0]
    return MappingProxyType({"name": "chat", "where": MappingProxyType({"dataset": wanted})})


def _best_paths() -> Format:
    return MappingProxyType({"name": "oasst", "paths": "best"})


APACHE, ODC, MIT = "Apache-2.0", "ODC-BY-1.0", "MIT"
NC, BY_NC_SA = "CC-BY-NC-4.0", "CC-BY-NC-SA"
SHAREGPT = "anon8231489123/ShareGPT_Vicuna_unfiltered"
SHAREGPT_FILE = "ShareGPT_V3_unfiltered_cleaned_split.json"
OF_GSM8K = MappingProxyType({"problem_source": ["augmented_gsm8k", "gsm8k"]})
ORCA_FILE = "1M-GPT4-Augmented.parquet"

TULU_1 = {
    "flan_v2": Part(V1, 100_000, APACHE, format=_of("flan_v2")),
    "cot": Part(V1, 100_000, format=_of("cot"), note="half zero-shot, half few-shot"),
    "oasst1": Part("OpenAssistant/oasst1", None, APACHE, format="oasst"),
    "dolly": Part("databricks/databricks-dolly-15k", None, "CC-BY-SA-3.0", format="dolly"),
    "gpt4_alpaca": Part("vicgalle/alpaca-gpt4", None, NC, format="alpaca"),
    "code_alpaca": Part("sahil2801/CodeAlpaca-20k", 20_022, NC, format="alpaca"),
    "sharegpt": Part(
        SHAREGPT,
        None,
        APACHE,
        data_files=SHAREGPT_FILE,
        format="sharegpt",
        note="split at 2,048 tokens",
    ),
}

SCIENCE = {
    "evidence_inference": ("science.evidence_inference", 1_678),
    "qasper": ("science.qasper_truncated_4000", 2_255),
    "scifact": ("science.scifact_json", 919),
    "scitldr": ("science.scitldr_aic", 1_992),
}

TULU_2 = {
    "flan_v2": Part(V2, 50_000, APACHE, format=_of("flan_v2")),
    "cot": Part(V2, 50_000, APACHE, format=_of("cot"), note="49,747 after filtering"),
    "oasst1": Part("OpenAssistant/oasst1", 7_708, APACHE, format=_best_paths()),
    "sharegpt": Part(
        SHAREGPT,
        114_046,
        APACHE,
        data_files=SHAREGPT_FILE,
        format="sharegpt",
        note="split at 4,096 tokens",
    ),
    "gpt4_alpaca": Part("vicgalle/alpaca-gpt4", 20_000, NC, format="alpaca"),
    "code_alpaca": Part("sahil2801/CodeAlpaca-20k", 20_022, NC, format="alpaca"),
    "lima": Part("GAIR/lima", 1_030, BY_NC_SA, format="lima"),
    "wizardlm": Part("WizardLMTeam/WizardLM_evol_instruct_V2_196k", 30_000, MIT, format="sharegpt"),
    "open_orca": Part("Open-Orca/OpenOrca", 30_000, MIT, data_files=ORCA_FILE, format="open_orca"),
    **{name: Part(V2, rows, format=_of(value)) for name, (value, rows) in SCIENCE.items()},
    "scierc": Part(V2, 700, format=_of("science.scierc_ner", "science.scierc_relation")),
    "hard_coded": Part(V2, 140, format=_of("hard_coded")),
}

TULU_3 = {
    "hard_coded": Part("allenai/tulu-3-hard-coded", 240, "CC-BY-4.0", note="24 prompts, 10 times"),
    "oasst1": Part("OpenAssistant/oasst1", 7_132, APACHE, format=_best_paths()),
    "no_robots": Part("HuggingFaceH4/no_robots", 9_500, NC, format="no_robots"),
    "wildchat": Part(
        "allenai/WildChat-1M",
        100_000,
        ODC,
        format=MappingProxyType({"name": "wildchat", "model": "gpt-4"}),
        decontaminated="allenai/wildchat_gpt4_converted_safety_decontaminated",
    ),
    "flan_v2": Part(
        "ai2-adapt-dev/flan_v2_converted", 89_982, APACHE, note="a development id of the authors"
    ),
    "sciriff": Part("allenai/SciRIFF", 10_000, ODC, config="4096", format="sciriff"),
    "table_gpt": Part("LipengCS/Table-GPT", 5_000, MIT, config="All", format="table_gpt"),
    "persona_math": Part("allenai/tulu-3-sft-personas-math", 149_960, ODC),
    "persona_gsm": Part("allenai/tulu-3-sft-personas-math-grade", 49_980, ODC),
    "persona_algebra": Part("allenai/tulu-3-sft-personas-algebra", 20_000, ODC),
    "openmath": Part(
        "nvidia/OpenMathInstruct-2",
        50_000,
        "CC-BY-4.0",
        format=MappingProxyType({"name": "openmath", "where": OF_GSM8K}),
        decontaminated="ai2-adapt-dev/tulu_v3.9_open_math_2_gsm8k_50k",
    ),
    "numina_tir": Part(
        "AI-MO/NuminaMath-TIR",
        64_312,
        APACHE,
        format="numina_tir",
        decontaminated="allenai/numinamath_tir_math_decontaminated",
    ),
    "persona_code": Part("allenai/tulu-3-sft-personas-code", 34_999, ODC),
    "evol_codealpaca": Part(
        "theblackcat102/evol-codealpaca-v1",
        107_276,
        APACHE,
        format="evol_codealpaca",
        decontaminated="allenai/evol_codealpaca_heval_decontaminated",
    ),
    "coconot": Part("allenai/coconot", 10_983, ODC, config="original", format="coconot"),
    "wildjailbreak": Part(
        "allenai/wildjailbreak",
        50_000,
        ODC,
        config="train",
        format="wildjailbreak",
        decontaminated="ai2-adapt-dev/tulu_v3.9_wildjailbreak_decontaminated_50k",
    ),
    "wildguardmix": Part(
        "allenai/wildguardmix",
        50_000,
        ODC,
        config="wildguardtrain",
        format="wildguardmix",
        decontaminated=(
            "ai2-adapt-dev/tulu_v3.9_synthetic_finalresp_wildguardmixtrain_decontaminated_50k"
        ),
        note="the mixture has newly written answers",
    ),
    "aya": Part("CohereForAI/aya_dataset", 100_000, APACHE, format="aya"),
    "persona_if": Part("allenai/tulu-3-sft-personas-instruction-following", 29_980, ODC),
}

# --- preferences ---------------------------------------------------------------------------------

_TULU_25_ROWS = {
    "alpaca_farm_gpt4_pref": 19_465,
    "alpaca_farm_human_pref": 9_686,
    "argilla_dpo_mix": 6_750,
    "capybara": 7_563,
    "chatbot_arena_2023": 20_465,
    "chatbot_arena_2024": 34_269,
    "helpsteer": 9_270,
    "hh_rlhf": 158_530,
    "hh_rlhf_60k": 60_908,
    "nectar": 180_099,
    "nectar_60k": 60_908,
    "orca_dpo_pairs": 12_859,
    "preference_big_mixture": 259_851,
    "prm800k_pairs_phase2": 6_949,
    "shp_2": 500_000,
    "stack_exchange_60k": 60_908,
    "stack_exchange_paired": 500_000,
    "ultrafeedback_evol_instruct": 10_000,
    "ultrafeedback_false_qa": 2_339,
    "ultrafeedback_flan_v2": 20_939,
    "ultrafeedback_lower_10k": 10_000,
    "ultrafeedback_mean_aspects": 60_908,
    "ultrafeedback_middle_10k": 10_000,
    "ultrafeedback_overall": 58_933,
    "ultrafeedback_sharegpt": 19_948,
    "ultrafeedback_top_10k": 10_000,
    "ultrafeedback_truthful_qa": 811,
    "ultrafeedback_ultrachat": 9_929,
}
_NON_COMMERCIAL = {
    "alpaca_farm_gpt4_pref": NC,
    "alpaca_farm_human_pref": NC,
    "chatbot_arena_2023": NC,  # the answers; the prompts are CC-BY-4.0
}

TULU_25_PREFERENCE = {
    split: Part(PAIRS, rows, _NON_COMMERCIAL.get(split, ODC), split=split)
    for split, rows in _TULU_25_ROWS.items()
}

TULU_3_PREFERENCE_8B = {
    "sft_reused_on_policy": Part("allenai/tulu-3-sft-reused-on-policy-8b", 19_444, ODC),
    "sft_reused_off_policy": Part("allenai/tulu-3-sft-reused-off-policy", 96_911, ODC),
    "if_augmented": Part("allenai/tulu-3-IF-augmented-on-policy-8b", 65_530, ODC),
    "wildchat_if": Part("allenai/tulu-3-wildchat-if-on-policy-8b", 10_792, ODC),
    "wildchat_reused": Part("allenai/tulu-3-wildchat-reused-on-policy-8b", 17_207, ODC),
    "ultrafeedback": Part("allenai/tulu-3-ultrafeedback-cleaned-on-policy-8b", 41_635, ODC),
    "persona_if": Part("allenai/tulu-3-pref-personas-instruction-following", 19_890, ODC),
}
TULU_3_PREFERENCE_70B = {
    "sft_reused_on_policy": Part("allenai/tulu-3-sft-reused-on-policy-70b", 19_444, ODC),
    "sft_reused_off_policy": Part("allenai/tulu-3-sft-reused-off-policy", 96_911, ODC),
    "if_augmented": Part(
        "allenai/tulu-3-IF-augmented-on-policy-70b", 65_530, ODC, note="65,551 rows were released"
    ),
    "wildchat_if": Part("allenai/tulu-3-wildchat-if-on-policy-70b", 10_792, ODC),
    "wildchat_reused": Part("allenai/tulu-3-wildchat-reused-on-policy-70b", 17_207, ODC),
    "wildchat_unused": Part("allenai/tulu-3-wildchat-unused", 82_783, ODC),
    "ultrafeedback": Part("allenai/tulu-3-ultrafeedback-cleaned-on-policy-70b", 41_635, ODC),
}

# --- verifiable rewards --------------------------------------------------------------------------

TULU_3_RLVR = {
    "gsm": Part("allenai/RLVR-GSM", 7_473, format="rlvr"),
    "math": Part("allenai/RLVR-MATH", 7_500, format="rlvr"),
    "if": Part("allenai/RLVR-IFeval", 14_973, format="rlvr"),
}

MIXTURES: Mapping[str, Mapping[str, Part]] = MappingProxyType(
    {
        "tulu1": TULU_1,
        "tulu2": TULU_2,
        "tulu2.5-preference": TULU_25_PREFERENCE,
        "tulu3": TULU_3,
        "tulu3-preference-8b": TULU_3_PREFERENCE_8B,
        "tulu3-preference-70b": TULU_3_PREFERENCE_70B,
        "tulu3-rlvr": TULU_3_RLVR,
    }
)

# the mixtures as they were published, whole: id -> rows of the metadata
PUBLISHED: Mapping[str, int] = MappingProxyType(
    {
        V1: 489_818,
        V2: 326_154,
        "allenai/tulu-3-sft-mixture": 939_343,
        "allenai/llama-3.1-tulu-3-8b-preference-mixture": 271_409,
        "allenai/llama-3.1-tulu-3-70b-preference-mixture": 334_367,
        "allenai/llama-3.1-tulu-3-405b-preference-mixture": 360_924,
        "allenai/RLVR-GSM-MATH-IF-Mixed-Constraints": 29_946,
    }
)


def _plain(part: Part) -> Format:
    """The format of an id by itself: what a mixture asks of it beyond that is left out."""
    return part.format if isinstance(part.format, str) else str(part.format["name"])


# other public sets whose rows are known; hub id -> format
_OTHERS: dict[str, Format] = {
    "Anthropic/hh-rlhf": "hh_rlhf",
    "CohereLabs/aya_dataset": "aya",  # what the hub calls CohereForAI/aya_dataset today
    "HuggingFaceH4/ultrafeedback_binarized": "ultrafeedback_binarized",
    "OpenAssistant/oasst2": "oasst",
    "SirNeural/flan_v2": "flan",
    "glaiveai/glaive-function-calling-v2": "glaive",
    "openai/gsm8k": "gsm8k",
    "openbmb/UltraFeedback": "ultrafeedback",
    "tatsu-lab/alpaca": "alpaca",
}
KNOWN_FORMATS: Mapping[str, Format] = MappingProxyType(
    {part.path: _plain(part) for parts in MIXTURES.values() for part in parts.values()}
    | {part.decontaminated: "chat" for part in TULU_3.values() if part.decontaminated}
    | {path: "chat" for path in PUBLISHED}
    | _OTHERS
)
