"""docs/recipes.md, made from the declarations that spec.py brings together."""

from __future__ import annotations

from dataclasses import MISSING
from typing import Any

from posttrain.recipe.dump import to_dict
from posttrain.recipe.keys import Key, keys
from posttrain.recipe.source import Source
from posttrain.recipe.spec import Eval, Recipe, Task
from posttrain.recipe.stages import STAGES, Stage

_INTRO = """\
# Recipes: every key

Made from `posttrain/recipe/spec.py` and `posttrain/recipe/stages.py` by `python -m
posttrain.recipe.schema`; a test fails when it is stale. `recipes/schema.json` says the same to an
editor.

```yaml
name: my-run
model_name_or_path: meta-llama/Llama-3.2-1B
chat_template: tulu
stages:
  - sft:
      datasets: [{{path: data/instructions.jsonl, columns: {{completion: response}}}}]
      learning_rate: 5e-6
  - dpo:
      datasets: [data/pairs.jsonl]
      loss: {{name: dpo, beta: 0.1}}
eval: [gsm8k, ifeval]
```

- An unknown key is an error that names the nearest known one. All faults of a file come at once,
  each with its place, its line, what is allowed and what to change.
- Short forms: a source or a task may be a bare text (its `path`, its `name`), `eval` may be a list
  of tasks, `loss: dpo` is `loss: {{name: dpo}}`, and `advantage: group` likewise.
- `extends: other.yaml` lays this recipe over another one, one level deep. Mappings merge key by
  key, stages by their names (new ones come last), lists are replaced. A loss or an advantage with
  another name inherits no options.
- On the command line: `stages.sft.learning_rate=1e-5`, `stages.sft.datasets.0.num_samples=10`,
  `eval.max_new_tokens=64`, or `--learning_rate 1e-5` where only one key can be meant; `--stage dpo`
  says which stage. Later layers win: `--max_steps 10` also takes the place of the file's
  `num_train_epochs`.
- Other tools' spellings (last column) are read too, with one warning. `dataset_mixer_list` takes
  open-instruct's `[name, amount, ...]`: an amount with a point is a share (`1.0` all, `3.0` three
  passes), without one a number of rows.
- A source has at most one of {exclusive}.
"""

_HEAD = "| key | type | default | meaning | other spellings |\n|---|---|---|---|---|\n"
_TYPES = {str: "text", int: "integer", float: "number", bool: "true/false"}


def reference() -> str:
    """The page as Markdown."""
    exclusive = ", ".join(f"`{name}`" for name in Source.EXCLUSIVE)
    parts = [_INTRO.format(exclusive=exclusive)]
    parts.append(_section("The recipe", Recipe))
    parts.append(_section("Entries of `datasets`", Source))
    parts.append(_section("Every stage", Stage))
    for kind, cls in STAGES.items():
        parts.append(_section(f"`{kind}` stages", cls, besides=Stage))
    parts.append(_section("`eval`", Eval))
    parts.append(_section("Entries of `eval.tasks`", Task))
    return "\n".join(parts)


def _section(title: str, cls: type, besides: type | None = None) -> str:
    common = keys(besides) if besides else {}
    own = [key for name, key in keys(cls).items() if common.get(name) != key]
    intro = f"## {title}\n\n{(cls.__doc__ or '').splitlines()[0]}\n"
    if not own:
        return f"{intro}\nNo keys of its own.\n"
    return f"{intro}\n{_HEAD}{''.join(_row(key) for key in own)}"


def _row(key: Key) -> str:
    others = ", ".join(f"`{alias}`" for alias in key.aliases)
    cells = (f"`{key.name}`", _type(key), _default(key), _meaning(key), others)
    return (
        "| " + " | ".join(cell.replace("|", "\\|").replace("<", "\\<") for cell in cells) + " |\n"
    )


def _meaning(key: Key) -> str:
    if key.choices:
        return f"{key.help} One of {', '.join(f'`{choice}`' for choice in key.choices)}."
    return f"{key.help} {key.bounds().capitalize()}." if key.bounds() else key.help


def _type(key: Key) -> str:
    if key.block:
        return "list" if key.is_list else "mapping or list"
    if key.method:
        return "text or mapping"
    return " or ".join(_word(hint) for hint in key.types)


def _word(hint: Any) -> str:
    if hint in _TYPES:
        return _TYPES[hint]
    return "list" if str(hint).startswith("tuple") else "mapping"


def _default(key: Key) -> str:
    if key.default is MISSING:
        return "**required**"
    if key.default is None:
        return ""
    value = to_dict(key.default)
    if isinstance(value, dict):
        return f"`{{{', '.join(f'{name}: {item}' for name, item in value.items())}}}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
