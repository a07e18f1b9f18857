"""The process that runs the tests. What the completion defined is a stand-in here.

A value that comes back is plain data (compared by this process's own `==`), or a stand-in that
equals no plain data and does no arithmetic with it, unless its class is one that the tests name.
So code that does not know an answer has nothing to say that would pass for it.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from posttrain.verifiers.sandbox.candidate import OPERATIONS
from posttrain.verifiers.sandbox.closeness import numpy
from posttrain.verifiers.sandbox.wire import Channel, decode, encode

# What a stand-in does for anyone: none of these carries a value that a test expects.
_FREE = {
    "__bool__", "__bytes__", "__complex__", "__enter__", "__exit__", "__float__", "__getitem__",
    "__int__", "__iter__", "__len__", "__next__", "__repr__", "__reversed__", "__str__", "__neg__",
    "__abs__", "__hash__", "__instancecheck__", "__subclasscheck__", "__index__", "__dir__",
    "__format__", "__round__",
}  # fmt: skip
_READABLE = ("__name__", "__doc__", "__annotations__", "__wrapped__")


class Lost(Exception):
    """The completion's process ended, or what it says is no message."""


class Link:
    """The judge's end: requests out, values back."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.callbacks: list[Callable[..., Any]] = []
        self.errors: dict[int, type[Exception]] = {}
        self.named: set[int] = set()
        self.stand_ins: dict[int, Any] = {}

    def ask(self, *request: Any) -> dict[str, Any]:
        """Carry out a request over there.

        Raises:
            Lost: nobody answers.
            Exception: what the completion's code raised, as its nearest built-in.
        """
        try:
            if request:
                self.channel.send(list(request))
            answer = self.channel.receive()
            while isinstance(answer, dict) and "callback" in answer:
                self.channel.send(self.called_back(answer))
                answer = self.channel.receive()
        except (EOFError, OSError) as error:
            raise Lost("the code ended the process") from error
        except ValueError as error:
            raise Lost(f"the code's process sent nonsense: {error}") from error
        if not isinstance(answer, dict) or not {"value", "raised"} & set(answer):
            raise Lost("the code's process sent nonsense")
        if "raised" in answer:
            raise self.error(*answer["raised"])
        return answer

    def called_back(self, message: dict[str, Any]) -> list[Any]:
        """The candidate calls a function that a test handed it."""
        try:
            function = self.callbacks[message["callback"]]
            value = function(*[self.decode(arg) for arg in message["args"]])
            return ["returned", self.encode(value)]
        except Exception as error:
            return ["threw", type(error).__name__, str(error)]

    def error(self, base: str, own: Any, args: list[Any], text: str) -> Exception:
        kind = getattr(builtins, base, None)
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            raise Lost(f"the code raises {base}")
        if own is not None:
            found = self.decode(own)
            kind = found if isinstance(found, type) and issubclass(found, kind) else kind
        try:
            return kind(*[self.decode(arg) for arg in args])
        except Exception:
            return RuntimeError(text)

    def encode(self, value: Any) -> Any:
        return encode(value, self.refer)

    def decode(self, value: Any) -> Any:
        try:
            return decode(value, self.resolve)
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
            raise Lost(f"the code's process sent a value that is none: {error}") from error

    def refer(self, value: Any) -> Any:
        if isinstance(value, StandIn):
            return {"object": at(value).ref}
        if isinstance(value, type) and value in self.errors.values():
            return {"object": next(r for r, kind in self.errors.items() if kind is value)}
        if callable(value):
            self.callbacks.append(value)
            return {"callback": len(self.callbacks) - 1}
        raise TypeError(f"a {type(value).__name__} of the tests cannot be given to the completion")

    def resolve(self, value: dict[str, Any]) -> Any:
        """The stand-in for what stays with the candidate."""
        ref, kind, name, extra = value["ref"]
        if not isinstance(ref, int):
            raise TypeError(f"reference {ref!r}")
        if kind == "error":
            if ref not in self.errors:
                base = getattr(builtins, extra, RuntimeError)
                base = base if issubclass(base, Exception) else RuntimeError
                self.errors[ref] = type(str(name), (base,), {})
            return self.errors[ref]
        if ref not in self.stand_ins:
            self.stand_ins[ref] = StandIn(Place(self, ref, str(name), extra))
        return self.stand_ins[ref]


@dataclass(frozen=True)
class Place:
    """Where a stand-in's original is.

    Attributes:
        kind: the reference of its class, or nothing for a class.
    """

    link: Link
    ref: int
    name: str
    kind: Any

    @property
    def is_named(self) -> bool:
        """It is a class that the tests name, or of one."""
        return self.kind in self.link.named or self.ref in self.link.named


class StandIn:
    """Something that lives in the completion's process."""

    __slots__ = ("__place",)

    def __init__(self, place: Place) -> None:
        object.__setattr__(self, "_StandIn__place", place)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in _READABLE:
            raise AttributeError(name)
        place = at(self)
        return place.link.decode(place.link.ask("get", place.ref, name)["value"])

    def __setattr__(self, name: str, value: Any) -> None:
        place = at(self)
        place.link.ask("set", place.ref, name, place.link.encode(value))

    def __call__(self, *args: Any, **named: Any) -> Any:
        place = at(self)
        link = place.link
        sent = [link.encode(arg) for arg in args]
        answer = link.ask("call", place.ref, sent, {k: link.encode(v) for k, v in named.items()})
        changed = answer.get("changed") or {}
        for index, value in changed.items():
            write_back(args[int(index)], link.decode(value))
        return link.decode(answer["value"])


def at(stand_in: StandIn) -> Place:
    """Where its original is; no name that the completion may use for an attribute leads there."""
    return object.__getattribute__(stand_in, "_StandIn__place")


def write_back(old: Any, new: Any) -> None:
    """Make a list, dict, set or bytearray of the tests what the call left of it."""
    if type(old) is not type(new):
        raise Lost("the code's process sent nonsense")
    if isinstance(old, list | bytearray):
        old[:] = new
    elif isinstance(old, dict | set):
        old.clear()
        old.update(new)


def _operation(name: str) -> Callable[..., Any]:
    def apply(self: StandIn, *args: Any) -> Any:
        place = at(self)
        if not place.is_named and name not in _FREE:
            if name == "__contains__":
                return any(item is args[0] or item == args[0] for item in iter(cast(Any, self)))
            if name not in ("__eq__", "__ne__"):
                raise TypeError(f"{name} of a {place.name}, which the tests do not name")
            if not isinstance(args[0], StandIn):
                return name == "__ne__"
        if name == "__exit__":
            args = (None, None, None)
        answer = place.link.ask("apply", name, place.ref, [place.link.encode(a) for a in args])
        return place.link.decode(answer["value"])

    return apply


for _name in OPERATIONS:
    setattr(StandIn, _name, _operation(_name))


def entry_of(tree: ast.Module, given: str | None) -> str | None:
    """The function under test: as given, or a built-in's name where the tests call no other."""
    if given:
        return given
    called = [
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    foreign = [name for name in called if not hasattr(builtins, name)]
    return None if foreign or not called else called[0]


def namespace_of(link: Link, tests: dict[str, Any]) -> dict[str, Any]:
    """The tests' names: the setup run here, and stand-ins for what the completion defines.

    A name that is built in, or that the setup or a test imports or defines, is never the
    completion's to give; a class of the setup is, so that both sides mean the same one.
    """
    setup = ast.parse(tests["setup"])
    trees = [ast.parse(test) for test in tests["tests"]]
    whole = ast.Module([*setup.body, *(node for tree in trees for node in tree.body)], [])
    entry = entry_of(whole, tests["entry_point"])
    wanted = {node.id for node in ast.walk(whole) if isinstance(node, ast.Name)}
    wanted = {n for n in wanted - taken(whole, setup) if not hasattr(builtins, n)}
    wanted |= {entry} if entry else set()
    names: dict[str, Any] = {"__name__": "tests"}
    values = link.ask("names", sorted(wanted))["value"]
    for name in sorted(wanted & set(values)):
        value = values[name]
        kind = value["ref"][1] if isinstance(value, dict) and "ref" in value else ""
        names[name] = real_module(name, value["ref"][2]) if kind == "module" else link.decode(value)
        if kind == "class":
            link.named.add(value["ref"][0])
    for node in setup.body:
        if isinstance(node, ast.ClassDef) and node.name in names:
            continue
        try:
            exec(compile(ast.Module([node], []), "<setup>", "exec"), names)
        except Lost:
            raise
        except Exception:  # the candidate's process has run it too
            continue
    if entry and entry in names:
        names.setdefault("candidate", names[entry])
    return names


def taken(whole: ast.Module, setup: ast.Module) -> set[str]:
    """Names that tests and setup import, and functions and classes that they define."""
    found = set()
    for node in ast.walk(whole):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
    return found - {node.name for node in setup.body if isinstance(node, ast.ClassDef)}


def real_module(name: str, claimed: str) -> types.ModuleType | None:
    """A module of the standard library that the code imported under its own name."""
    if name != claimed or name not in sys.stdlib_module_names:
        return None
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def judge_calls(link: Link, tests: dict[str, Any]) -> Iterator[str | None]:
    """For each test why it fails, or None."""
    sys.modules.setdefault("numpy", numpy())  # in this process, which holds no foreign code
    names = namespace_of(link, tests)
    if (entry := tests["entry_point"]) and entry not in names:
        raise Lost(f"the code defines no {entry}")
    for test in tests["tests"]:
        try:
            exec(compile(test, "<test>", "exec"), names)
        except Lost:
            raise
        except BaseException as error:
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            yield "" if isinstance(error, AssertionError) and not str(error) else text[:200]
        else:
            yield None
    check = names.get("check")
    if entry and isinstance(check, types.FunctionType) and not is_called("check", tests["tests"]):
        yield from judge_check(check, names[entry])


def is_called(name: str, tests: list[str]) -> bool:
    """Whether some test calls the function, outside of definitions."""
    body = [node for test in tests for node in ast.parse(test).body]
    return any(
        isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == name
        for node in body
        if not isinstance(node, ast.FunctionDef | ast.ClassDef)
        for call in ast.walk(node)
    )


def judge_check(check: Callable[[Any], Any], entry: Any) -> Iterator[str | None]:
    """HumanEval's form: the tests define `check` and leave calling it to the grader."""
    try:
        check(entry)
    except Lost:
        raise
    except BaseException as error:
        yield f"{type(error).__name__}: {error}"[:200]
    else:
        yield None


def judge_runs(link: Link, tests: dict[str, Any]) -> Iterator[str | None]:
    """Programs that read and write: output equal line by line, spaces at their ends aside."""
    for test in tests["tests"]:
        text, status = link.ask("run", test["input"])["value"]
        if not isinstance(text, str) or status != 0:
            yield f"the program ends with status {status}"
        elif lines(text) != lines(test["output"]):
            yield f"it printed {text[:80]!r}"
        else:
            yield None


def lines(text: str) -> list[str]:
    """Lines without the spaces at their ends, and without the empty ones at the end."""
    found = [line.rstrip() for line in text.rstrip().split("\n")]
    return found if any(found) else []


def judge(channel: Channel, tests: dict[str, Any]) -> dict[str, Any]:
    """How many tests pass, and why the first other one does not."""
    link, done, passed, first = Link(channel), 0, 0, None
    try:
        link.ask()  # the code is loaded
        run = judge_runs if tests["runs"] else judge_calls
        for failure in run(link, tests):
            done += 1
            passed += failure is None
            if failure is not None and first is None:
                first = [done, failure]
    except Lost as lost:
        first = first or [done + 1, str(lost)]
    except Exception as error:
        first = first or [done + 1, f"{type(error).__name__}: {error}"[:200]]
    return {"passed": passed, "done": done, "first": first}
