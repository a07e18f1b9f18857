"""Chat templates: messages -> text. A template is compiled once and applied many times.

`ChatTemplate` renders what `tokenizer.apply_chat_template(tokenize=False)` renders, in a sandbox of
the same settings, without its cost per call. A tokenizer with an `apply_chat_template` of its own
is asked instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from posttrain.errors import DataError, nearest
from posttrain.tokens.outline import BEGIN, copies, fill, hold, outline

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turns = Sequence[Mapping[str, Any]]
PLAIN = {"role", "content", "name", "tool_calls", "tool_call_id"}
COUNTERS = {"first", "last", "index", "index0", "length", "previtem", "nextitem"}
MOST_OUTLINES, MOST_HELD = 2000, 64  # orders of roles remembered, and turns of one
LONGEST_REASON = 200  # characters of a template's own complaint


def template_names() -> list[str]:
    """Names of the chat templates that ship with posttrain."""
    folder = resources.files("posttrain") / "templates"
    return sorted(
        p.name.removesuffix(".jinja") for p in folder.iterdir() if p.name.endswith(".jinja")
    )


def load_template(name: str) -> str:
    """The text of a shipped chat template, or of a `.jinja` file.

    Raises:
        DataError: neither a known name nor an existing file.
    """
    if name in template_names():
        return (resources.files("posttrain") / "templates" / f"{name}.jinja").read_text(
            encoding="utf-8"
        )
    if name.endswith(".jinja") and Path(name).is_file():
        return Path(name).read_text(encoding="utf-8")
    raise DataError(
        f"chat_template: {name!r} is neither a .jinja file nor a known template"
        f"{nearest(name, template_names())}"
    )


class Generation(Extension):
    """Reads `{% generation %} ... {% endgeneration %}`, which renders what stands inside it."""

    tags = {"generation"}  # noqa: RUF012 (as jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("inside"), [], [], body).set_lineno(line)

    def inside(self, caller: Any) -> str:
        return str(caller())


class PublicNamespace(Namespace):
    """`namespace()` that keeps no underscore names, so that none can reach Python's internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            refuse_private(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        refuse_private(name)
        super().__setitem__(name, value)


def refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a chat template may not set the attribute {name!r}")


def raise_exception(message: str) -> None:
    """What a template calls to refuse a conversation."""
    raise TemplateError(message)


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; jinja's own filter writes it for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def new_dict(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """`dict(...)` without the attributes of the class."""
    return dict(*args, **kwargs)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which asks its long list of questions about all but a loop's counters."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is LoopContext and attribute in COUNTERS:
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)


@lru_cache(maxsize=1)
def sandbox() -> Sandbox:
    """Where chat templates run, set up as transformers sets up its own."""
    out = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    out.filters["tojson"] = tojson
    out.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": lambda format: datetime.now().strftime(format),
        "dict": new_dict,
        "namespace": PublicNamespace,
    }
    return out


@lru_cache(maxsize=32)
def compile_template(text: str) -> Template:
    """A chat template ready to render.

    Raises:
        DataError: the text is no jinja template.
    """
    try:
        template = sandbox().from_string(text)
    except TemplateError as error:
        raise DataError(f"the chat template cannot be read: {reason(error)}") from error
    template.globals = dict(template.globals)  # a chain of maps is slow to copy for each render
    return template


@lru_cache(maxsize=32)
def only_copies(text: str) -> bool:
    """Whether a chat template copies contents, see `outline`."""
    compile_template(text)  # what cannot be read is told of there
    return copies(sandbox(), text)


def reason(error: Exception) -> str:
    return " ".join(str(error).split())[:LONGEST_REASON]


def plain_turns(messages: Turns) -> list[dict[str, Any]]:
    """Messages as a template sees them: absent fields left out, ours (`train`) too."""
    return [{k: v for k, v in m.items() if v is not None and k != "train"} for m in messages]


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with the special tokens it may write. Picklable.

    Attributes:
        text: jinja; or several by name, `tool_use` for rows with tools and `default`.
        special_tokens: `bos_token`, `eos_token` and the like, as the template's variables.
        tokenizer: asked to render where it has its own way; else `None`.
    """

    text: str | dict[str, str]
    special_tokens: dict[str, str] = field(default_factory=dict)
    tokenizer: PreTrainedTokenizerBase | None = None
    outlines: dict[Any, tuple[list[str], list[int]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
        """The chat template of a tokenizer.

        Raises:
            DataError: it has none.
        """
        from transformers import PreTrainedTokenizerBase as Base

        if not tokenizer.chat_template:
            raise DataError("the tokenizer has no chat template; set `chat_template:`")
        kind = type(tokenizer)
        own = (
            kind.apply_chat_template is not Base.apply_chat_template
            or kind.get_chat_template is not Base.get_chat_template
        )
        return cls(
            tokenizer.chat_template,
            dict(tokenizer.special_tokens_map),
            tokenizer if own else None,
        )

    def source(self, tools: Any) -> str:
        """The template that is used for a row with or without tools."""
        if isinstance(self.text, str):
            return self.text
        if tools and "tool_use" in self.text:
            return self.text["tool_use"]
        if "default" in self.text:
            return self.text["default"]
        raise DataError("the tokenizer has several chat templates and none is called `default`")

    def render(self, turns: Turns, tools: Any = None, generation_prompt: bool = False) -> str:
        """The template applied to turns (as `plain_turns` gives them), as text.

        Raises:
            DataError: there are no turns, or the template refuses them (an unknown role, say).
        """
        if not turns:
            raise DataError("the chat template refuses the conversation: it has no turn")
        if self.tokenizer is not None or any(not turn.keys() <= PLAIN for turn in turns):
            return self.ask(turns, tools, generation_prompt)
        if not tools and only_copies(self.source(None)) and all(map(simple, turns)):
            return self.fill(turns, generation_prompt)
        return self.run(turns, tools, generation_prompt)

    def run(self, turns: Turns, tools: Any, generation_prompt: bool) -> str:
        """The template, run."""
        template = compile_template(self.source(tools))
        try:
            return template.render(
                {
                    **self.special_tokens,
                    "messages": turns,
                    "tools": tools or None,
                    "documents": None,
                    "add_generation_prompt": generation_prompt,
                }
            )
        except Exception as error:  # jinja's own errors, raised by arbitrary templates
            raise refused(error) from error

    def fill(self, turns: Turns, generation_prompt: bool) -> str:
        """The same of a template that only copies contents: what is around them is remembered."""
        contents = [turn["content"] for turn in turns]
        key = (generation_prompt, *((turn["role"], not turn["content"]) for turn in turns))
        known = self.outlines.get(key)
        if known is None:
            written = [*self.special_tokens.values(), *(turn["role"] for turn in turns)]
            if any(BEGIN in text for text in written):
                return self.run(turns, None, generation_prompt)
            held = hold(contents)
            stand_ins = [{**turn, "content": text} for turn, text in zip(turns, held, strict=True)]
            known = outline(self.run(stand_ins, None, generation_prompt))
            if len(self.outlines) < MOST_OUTLINES and len(turns) <= MOST_HELD:
                self.outlines[key] = known
        return fill(*known, contents)

    def ask(self, turns: Turns, tools: Any, generation_prompt: bool) -> str:
        """The same through transformers: fields that only some templates know are read there."""
        from transformers import PreTrainedTokenizerBase as Base

        asked = self.tokenizer or Base(chat_template=self.source(tools), **self.special_tokens)
        conversation: list[Any] = [dict(turn) for turn in turns]
        try:
            return asked.apply_chat_template(  # type: ignore[return-value]
                conversation,
                tools=tools or None,
                tokenize=False,
                add_generation_prompt=generation_prompt,
            )
        except Exception as error:
            raise refused(error) from error


def simple(turn: Mapping[str, Any]) -> bool:
    """Whether a turn is a role and a content, both text."""
    return len(turn) == 2 and type(turn.get("role")) is type(turn.get("content")) is str


def refused(error: Exception) -> DataError:
    return DataError(f"the chat template refuses the conversation: {reason(error)}")


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Turns,
    generation_prompt: bool = False,
    tools: Any = None,
) -> str:
    """The tokenizer's chat template applied to messages, as text.

    Raises:
        DataError: the template refuses the messages (an unknown role, say).
    """
    return ChatTemplate.of(tokenizer).render(plain_turns(messages), tools, generation_prompt)
