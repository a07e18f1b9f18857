"""The process that holds the completion's code. It is told calls, never tests nor answers.

Everything in here may be altered by the code it runs; the worst that this achieves is an answer of
the code's own choosing, which a function may give anyway.
"""

from __future__ import annotations

import builtins
import io
import operator
import os
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

from posttrain.verifiers.sandbox.wire import Channel, decode, encode

MODULE = "solution"
_MUTABLE = (list, dict, set, bytearray)

_OPERATORS = """
add and contains delitem eq floordiv ge getitem gt iadd imul index inv invert isub le lshift lt
matmul mod mul ne neg or pos pow rshift setitem sub truediv xor
"""

_BUILT_IN: dict[str, Callable[..., Any]] = {
    "__bool__": bool, "__bytes__": bytes, "__complex__": complex, "__dir__": dir,
    "__float__": float, "__hash__": hash, "__instancecheck__": lambda c, v: isinstance(v, c),
    "__int__": int, "__iter__": iter, "__len__": len, "__next__": next, "__repr__": repr,
    "__reversed__": reversed, "__round__": round, "__str__": str, "__format__": format,
    "__subclasscheck__": lambda c, v: issubclass(v, c), "__abs__": abs, "__divmod__": divmod,
    "__enter__": lambda v: type(v).__enter__(v), "__exit__": lambda v, *e: type(v).__exit__(v, *e),
}  # fmt: skip
OPERATIONS = _BUILT_IN | {
    f"__{name}__": getattr(operator, f"__{name}__") for name in _OPERATORS.split()
}


class Server:
    """Answers the judge's requests about one namespace."""

    def __init__(self, channel: Channel, namespace: dict[str, Any]) -> None:
        self.channel, self.namespace = channel, namespace
        self.objects: list[Any] = []
        self.refs: dict[int, int] = {}

    def refer(self, value: Any) -> dict[str, Any]:
        """What the judge is told of an object that stays here."""
        ref = self.refs.get(id(value))
        if ref is None:
            ref = self.refs[id(value)] = len(self.objects)
            self.objects.append(value)
        if isinstance(value, type):
            kind = "error" if issubclass(value, BaseException) else "class"
            base = builtin_error(value) if kind == "error" else ""
            return {"ref": [ref, kind, value.__name__, base]}
        if isinstance(value, types.ModuleType):
            return {"ref": [ref, "module", value.__name__, ""]}
        return {"ref": [ref, "object", type(value).__name__, self.refer(type(value))["ref"][0]]}

    def resolve(self, value: dict[str, Any]) -> Any:
        """The object, or the stand-in for the judge's function, that a message names."""
        ((kind, number),) = value.items()
        if kind == "callback":
            return lambda *args: self.call_back(number, args)
        return self.objects[number]

    def call_back(self, number: int, args: tuple[Any, ...]) -> Any:
        self.channel.send({"callback": number, "args": [encode(a, self.refer) for a in args]})
        while True:
            message = self.channel.receive()
            if message[0] == "returned":
                return decode(message[1], self.resolve)
            if message[0] == "threw":
                raise getattr(builtins, message[1], RuntimeError)(message[2])
            self.channel.send(self.answer(message))

    def answer(self, request: list[Any]) -> dict[str, Any]:
        """One request carried out: its value, or the error that it raised."""
        try:
            return getattr(self, f"do_{request[0]}")(*request[1:])
        except BaseException as error:
            return self.raised(error)

    def raised(self, error: BaseException) -> dict[str, Any]:
        try:
            args = [encode(arg, self.refer) for arg in error.args]
            kind = type(error)
            own = None if getattr(builtins, kind.__name__, None) is kind else self.refer(kind)
            return {"raised": [builtin_error(kind), own, args, str(error)[:300]]}
        except BaseException:
            return {"raised": ["RuntimeError", None, ["an error that cannot be shown"], ""]}

    def do_names(self, names: list[str]) -> dict[str, Any]:
        found = {name: self.namespace[name] for name in names if name in self.namespace}
        return {"value": {name: encode(value, self.refer) for name, value in found.items()}}

    def do_get(self, ref: int, name: str) -> dict[str, Any]:
        return {"value": encode(getattr(self.objects[ref], name), self.refer)}

    def do_set(self, ref: int, name: str, value: Any) -> dict[str, Any]:
        setattr(self.objects[ref], name, decode(value, self.resolve))
        return {"value": None}

    def do_apply(self, name: str, ref: int, args: list[Any]) -> dict[str, Any]:
        given = [decode(arg, self.resolve) for arg in args]
        value = OPERATIONS[name](self.objects[ref], *given)
        return {"value": encode(value, self.refer)}

    def do_call(self, ref: int, args: list[Any], named: dict[str, Any]) -> dict[str, Any]:
        """A call; lists and the like that it changed in place are sent back by position."""
        function = self.objects[ref]
        given = [decode(arg, self.resolve) for arg in args]
        result = function(*given, **{k: decode(v, self.resolve) for k, v in named.items()})
        changed = {}
        for index, value in enumerate(given):
            if isinstance(value, _MUTABLE):
                now = encode(value, self.refer)
                if now != args[index]:
                    changed[index] = now
        is_made = isinstance(function, type)
        return {"value": encode(result, self.refer, exact=is_made), "changed": changed}


def builtin_error(kind: type) -> str:
    """The nearest exception that Python itself knows."""
    names = (k.__name__ for k in kind.__mro__ if getattr(builtins, k.__name__, None) is k)
    return next(names, "RuntimeError")


def load(code: str, setup: str) -> dict[str, Any]:
    """The namespace after the setup and the code. A setup that needs the code runs after it."""
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    namespace = module.__dict__
    after = False
    try:
        exec(compile(setup, "<setup>", "exec"), namespace)
    except Exception:
        after = True
    exec(compile(code, "<completion>", "exec"), namespace)
    if after:
        exec(compile(setup, "<setup>", "exec"), namespace)
    return namespace


def serve_calls(channel: Channel, code: str, setup: str) -> None:
    """Load the code, then answer until the judge is gone."""
    server = Server(channel, {})
    try:
        server.namespace = load(code, setup)
    except BaseException as error:
        channel.send(server.raised(error))
        return
    channel.send({"value": None})
    while True:
        channel.send(server.answer(channel.receive()))


def serve_runs(channel: Channel, code: str, most: int) -> None:
    """Run the code as a program for every input that arrives; its output goes through a file."""
    try:
        program = compile(code, "<completion>", "exec")
    except BaseException as error:
        channel.send(Server(channel, {}).raised(error))
        return
    channel.send({"value": None})
    while True:
        _, given = channel.receive()
        with open("input", "w", encoding="utf-8") as file:
            file.write(given)
        out = os.open("output", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        child = os.fork()
        if child == 0:
            run_program(program, out, channel)
        _, status = os.waitpid(child, 0)
        text = os.pread(out, most, 0).decode("utf-8", "replace")
        os.close(out)
        channel.send({"value": [text, os.waitstatus_to_exitcode(status)]})


def run_program(program: types.CodeType, out: int, channel: Channel) -> NoReturn:
    """As `python program.py < input > output`; does not return."""
    status = 1
    try:
        os.close(channel.reading)
        os.close(channel.writing)
        os.dup2(os.open("input", os.O_RDONLY), 0)
        os.dup2(out, 1)
        sys.stdin = io.TextIOWrapper(io.FileIO(0), "utf-8")
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), "utf-8")
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        exec(program, main.__dict__)
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        status = 1
    finally:
        try:
            sys.stdout.flush()
        finally:
            os._exit(status & 255)
