"""The prompt repeated, and two responses in one."""

from __future__ import annotations


def divided(response: str, divider: str) -> list[str]:
    """The stripped parts between dividers; an empty one at either end is left out."""
    parts = [part.strip() for part in response.split(divider)]
    first = 0 if parts[0] else 1
    last = len(parts) if parts[-1] else len(parts) - 1
    return parts[first:last]


def repeat_prompt(response: str, prompt_to_repeat: str) -> bool:
    """The response begins with the prompt, in any case."""
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def two_responses(response: str) -> bool:
    """Two different responses, divided by six asterisks; a divider at either end is ignored."""
    parts = divided(response, "******")
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]
