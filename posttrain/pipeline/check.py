"""Everything that can be refused before anything is loaded, trained or written."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from posttrain.advantages import advantage
from posttrain.decontamination import read_settings
from posttrain.errors import Fault, ModelError, PosttrainError, RecipeError, VerifierError
from posttrain.evals.tasks import SUITES, get_suite, get_task
from posttrain.filters import get_filters
from posttrain.generation import engine_settings
from posttrain.generation.vllm.launch import vllm_python
from posttrain.generation.vllm.settings import VLLMSettings
from posttrain.losses import policy_loss, preference_loss, reward_loss
from posttrain.mixture.draw import get_mixing
from posttrain.models import check_checkpoint, load_config, load_tokenizer
from posttrain.pipeline.counting import say
from posttrain.recipe import Eval, Pretrain, Recipe, Stage, Task, load_recipe, stage_name
from posttrain.scratch import new_config
from posttrain.sources import GENERATED, PREFIX
from posttrain.sources.adapters import get_format
from posttrain.sources.files import exists, is_local
from posttrain.tokens import check_tokenizer, load_template
from posttrain.trainers.reference import check_reference_words
from posttrain.trainers.rewards import OWN
from posttrain.trainers.rlvr_config import Methods
from posttrain.trainers.scorer import is_reward_model
from posttrain.trainers.value import POLICY, RANDOM
from posttrain.verifiers import UNVERIFIED, VERIFIERS, get_verifier

Attempt = Callable[[str, Callable[[], Any]], None]


def read_recipe(
    path: str | Path, overrides: Sequence[str] = (), *, stage: str | None = None
) -> Recipe:
    """`load_recipe`, whose warnings are lines for the person who waits: once, not per process."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        recipe = load_recipe(path, overrides, stage=stage)
    if os.environ.get("RANK", "0") == "0":
        for warning in caught:
            say(str(warning.message))
    return recipe


def check(recipe: Recipe, origin: str | Path = "", *, smoke: bool = False) -> None:
    """Resolve every name in a recipe and look at every local file; all faults at once.

    Args:
        origin: the recipe's file, for the message.
        smoke: files and models that are not there will be stood in for.

    Raises:
        RecipeError: with one fault per thing that is wrong.
    """
    faults: list[Fault] = []

    def attempt(path: str, what: Callable[[], Any]) -> None:
        try:
            what()
        except PosttrainError as error:
            inner = error.faults if isinstance(error, RecipeError) else [Fault("", str(error))]
            for fault in inner:
                faults.append(Fault(fault.path or path, fault.message.removeprefix(f"{path}: ")))

    if recipe.chat_template:
        attempt("chat_template", lambda: load_template(recipe.chat_template or ""))
    attempt("decontaminate", partial(read_settings, recipe.decontaminate))
    for i, stage in enumerate(recipe.stages):
        check_stage(stage, f"stages[{i}].{stage.kind}", attempt, smoke)
        check_named(recipe, i, attempt, smoke)
    for task in eval_tasks(recipe.eval):
        attempt("eval.tasks", partial(get_task, task.name))
        if task.path and not smoke:
            attempt("eval.tasks", partial(must_exist, task.path))
    if recipe.eval and recipe.eval.suite:
        attempt("eval.suite", lambda: get_suite(recipe.eval.suite or ""))  # type: ignore[union-attr]
    if recipe.model_name_or_path and not smoke:
        check_model(recipe, attempt)
    elif isinstance(recipe.stages[0], Pretrain):
        check_pretrain(recipe, recipe.stages[0], attempt)
    if faults:
        raise RecipeError(faults, str(origin or recipe.name))


def check_stage(stage: Stage, path: str, attempt: Attempt, smoke: bool) -> None:
    """Names of methods, filters, verifiers and files of one stage."""
    attempt(f"{path}.filters", lambda: get_filters(stage.filters))
    if stage.mixing is not None:
        attempt(f"{path}.mixing", lambda: get_mixing(stage.mixing))
    if stage.kind == "dpo":
        attempt(f"{path}.loss", lambda: preference_loss(dpo_loss(stage)))
    if stage.kind == "reward":
        attempt(f"{path}.loss", lambda: reward_loss(stage.loss))  # type: ignore[attr-defined]
    if stage.kind == "rlvr":
        attempt(f"{path}.loss", lambda: policy_loss(stage.loss))  # type: ignore[attr-defined]
        attempt(f"{path}.advantage", lambda: advantage(stage.advantage))  # type: ignore[attr-defined]
        attempt(path, partial(check_methods, stage))
        attempt(f"{path}.generation", lambda: check_generation(stage))
        for ours in stage.remap_verifier.values():  # type: ignore[attr-defined]
            attempt(f"{path}.remap_verifier", partial(get_verifier, ours))
    for j, source in enumerate(stage.datasets):
        at = f"{path}.datasets[{j}]"
        attempt(f"{at}.filters", partial(get_filters, source.filters))
        if source.format is not None:
            attempt(f"{at}.format", partial(get_format, source.format, {}))
        if source.verifier:
            attempt(f"{at}.verifier", partial(get_verifier, source.verifier))
        if source.path.startswith(PREFIX):
            attempt(f"{at}.path", partial(known_generator, source.path, source.num_samples))
        elif not smoke:
            attempt(f"{at}.path", partial(must_exist, source.path))


def check_generation(stage: Any) -> None:
    """The engine is known, its options are, and what a server needs is there."""
    settings = engine_settings(stage.generation)
    if isinstance(settings, VLLMSettings) and settings.url is None:
        vllm_python()


def named_models(stage: Any) -> tuple[str, ...]:
    """Models that a stage names beside the one it starts from: stages, folders, hub ids."""
    if stage.kind == "dpo":
        return (stage.ref_model_name_or_path,) if stage.ref_model_name_or_path else ()
    if stage.kind != "rlvr":
        return ()
    functions = tuple(name for name in stage.reward_funcs if not is_verifier(name))
    own = stage.value_model
    return functions if own in (None, POLICY, RANDOM, *functions) else (*functions, own)


def is_verifier(name: str) -> bool:
    """Whether one of `reward_funcs` is a verifier, or stands for the rows' own."""
    try:
        return name == OWN or bool(get_verifier(name))
    except VerifierError:
        return False


def rows_verifier(stage: Any) -> str | None:
    """The verifier of all rows of a stage, whatever they name; `None`: the rows' own."""
    functions = getattr(stage, "reward_funcs", ())
    if not functions or OWN in functions:
        return None
    return next(filter(is_verifier, functions), UNVERIFIED)


def check_named(recipe: Recipe, i: int, attempt: Attempt, smoke: bool) -> None:
    """The reference and the reward models of a stage, those that are not stages themselves."""
    stage: Any = recipe.stages[i]
    at, earlier = f"stages[{i}].{stage.kind}", [stage_name(s) for s in recipe.stages[:i]]
    for name in named_models(stage):
        reward = stage.kind == "rlvr"
        key = "reward_funcs" if reward else "ref_model_name_or_path"
        valued = reward and name not in stage.reward_funcs
        path = f"{at}.{'value_model' if valued else key}"
        if name not in ("base", *earlier) and not smoke:
            attempt(path, partial(check_other, recipe, name, reward, earlier))
    if stage.kind == "dpo" and stage.ref_model_name_or_path:
        attempt(f"{at}.ref_model_name_or_path", partial(check_compares, stage))


def check_other(recipe: Recipe, name: str, reward: bool, earlier: Sequence[str]) -> None:
    """A checkpoint that a stage names is there and is of the kind that is asked for.

    Raises:
        RecipeError: a bare name that is nothing.
        ModelError: no model there, or one of the other kind.
    """
    if "/" not in name and not Path(name).is_dir():
        kinds = f"verifiers ({OWN}, {', '.join(VERIFIERS)}), " if reward else "`base`, "
        known = ", ".join(earlier) or "none"
        raise RecipeError(
            f"`{name}` is nothing: it may be {kinds}earlier stages ({known}), folders or hub ids"
        )
    check_checkpoint(name)
    scores = is_reward_model(load_config(name, **hub_options(recipe, name)))
    if scores != reward:
        what = "a reward model" if scores else "not a reward model"
        raise ModelError(f"{name} is {what}; give {'one' if reward else 'a language model'}")
    words = recipe.tokenizer_name_or_path or recipe.model_name_or_path
    if not reward and words:  # else the run makes them: `check_references`
        own = load_tokenizer(words, **hub_options(recipe, words))
        check_reference_words(own, name, **hub_options(recipe, name))


def check_references(recipe: Recipe, words: Any) -> None:
    """The references of a recipe that makes its own tokenizer, as soon as it is made.

    Raises:
        RecipeError: with one fault per reference that has another one.
    """
    stages, faults = [stage_name(stage) for stage in recipe.stages], []
    for i, stage in enumerate(recipe.stages):
        for name in named_models(stage) if stage.kind == "dpo" else ():
            try:
                if name not in stages:
                    check_reference_words(words, name, **hub_options(recipe, name))
            except ModelError as error:
                faults.append(Fault(f"stages[{i}].dpo.ref_model_name_or_path", str(error)))
    if faults:
        raise RecipeError(faults, recipe.name)


def check_methods(stage: Any) -> None:
    """Settings of RL that contradict each other; a method that is nothing is told of elsewhere."""
    try:
        policy_loss(stage.loss)
        advantage(stage.advantage)
    except PosttrainError:
        return
    Methods.of(stage)


def check_compares(stage: Any) -> None:
    """A reference is for a loss that has one."""
    try:
        loss = preference_loss(dpo_loss(stage))
    except PosttrainError:  # told of elsewhere
        return
    if not loss.needs_reference:
        name = stage.loss["name"]
        raise RecipeError(f"the loss {name!r} compares with no reference; remove it")


def hub_options(recipe: Recipe, path: str) -> dict[str, Any]:
    """How a model or tokenizer is fetched: the recipe pins the revision of its base model only."""
    return {
        "revision": recipe.model_revision if path == recipe.model_name_or_path else None,
        "trust_remote_code": recipe.trust_remote_code,
    }


def dpo_loss(stage: Any) -> dict[str, Any]:
    """The loss of a dpo stage with `beta:` folded in."""
    return dict(stage.loss) if stage.beta is None else {**stage.loss, "beta": stage.beta}


def known_generator(path: str, num_samples: int | None) -> None:
    """Refuse an unknown generator, or one without an end."""
    name = path.removeprefix(PREFIX)
    if name not in GENERATED:
        raise RecipeError(f"unknown generator {name!r} (known: {', '.join(sorted(GENERATED))})")
    if num_samples is None:
        raise RecipeError(f"{path} never ends: say how many rows with `num_samples`")


def must_exist(path: str) -> None:
    """Refuse a local path that is not there."""
    if is_local(path) and not exists(path):
        where = Path(path).expanduser().resolve()
        raise RecipeError(f"{path} does not exist (looked for {where}); mend the path")


def check_model(recipe: Recipe, attempt: Attempt) -> None:
    """The base checkpoint, its tokenizer, and stages that ask for more context than it has."""
    path = recipe.model_name_or_path or ""

    def model() -> None:
        check_checkpoint(path)
        config = load_config(path, **hub_options(recipe, path))
        for i, stage in enumerate(recipe.stages):
            at = f"stages[{i}].{stage.kind}"
            attempt(at, partial(check_context, stage, config, at))
        if not recipe.tokenizer_name_or_path:
            tokenizer()

    def tokenizer() -> None:
        name = recipe.tokenizer_name_or_path or path
        found = load_tokenizer(name, **hub_options(recipe, name))
        if recipe.chat_template:  # whether it can be read is another fault
            found.chat_template = recipe.chat_template
        check_tokenizer(found)

    attempt("model_name_or_path", model)
    if recipe.tokenizer_name_or_path:
        attempt("tokenizer_name_or_path", tokenizer)


def check_pretrain(recipe: Recipe, first: Pretrain, attempt: Attempt) -> None:
    """The model that a `pretrain` stage describes, and the stages that train it."""

    def model() -> None:
        config = new_config(first.model)
        for i, stage in enumerate(recipe.stages):
            at = f"stages[{i}].{stage.kind}"
            attempt(at, partial(check_context, stage, config, at))

    attempt("stages[0].pretrain.model", model)


def stage_length(stage: Any) -> int:
    """The longest sequence a stage can make, in tokens."""
    if stage.kind == "rlvr":
        return int(stage.max_prompt_length + stage.max_completion_length)
    return int(stage.max_length)


def check_context(stage: Stage, config: Any, path: str = "") -> None:
    """Refuse sequences that are longer than the model's context.

    Raises:
        RecipeError: naming both lengths.
    """
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    length = stage_length(stage)
    if context and length > context:
        what = "max_prompt_length + max_completion_length" if stage.kind == "rlvr" else "max_length"
        raise RecipeError(
            [
                Fault(
                    path or stage_name(stage),
                    f"{what} is {length}, but the model's context is {context} tokens; lower it",
                )
            ]
        )


def eval_tasks(spec: Eval | None) -> tuple[Task, ...]:
    """Every task of an `eval:` block, its suite first."""
    if spec is None:
        return ()
    suite = SUITES.get(spec.suite or "", ())
    return (*(Task(name=name) for name in suite), *spec.tasks)
