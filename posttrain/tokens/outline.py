"""What a chat template writes around the contents of its turns, asked once per order of roles.

Most templates copy each content as it is: what else they write depends on the roles, on which
contents are empty and on whether the answer is asked for. `copies` proves it from the template's
syntax tree, without running it; such a template is then applied by joining strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jinja2 import Environment, nodes

BEGIN, END = "\ue000", "\ue001"  # private characters around the number of a content
OF_NEIGHBOURS = {"previtem", "nextitem"}
WALKED = (  # statements and expressions that hand nothing on but to their own parts
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.If),
    *(nodes.For, nodes.Assign, nodes.Macro, nodes.Add, nodes.CondExpr, nodes.And, nodes.Or),
    *(nodes.Not, nodes.Getitem, nodes.Getattr, nodes.Call, nodes.Filter, nodes.Test),
    *(nodes.Compare, nodes.Operand, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair),
    *(nodes.Keyword, nodes.NSRef),
)


def copies(environment: Environment, source: str) -> bool:
    """Whether a template does nothing with a content but write it, or ask whether it is empty."""
    tree = environment.parse(source)
    if BEGIN in source or any(name.name == "strftime_now" for name in tree.find_all(nodes.Name)):
        return False
    messages: set[str] = set()
    while True:  # until no other name is known to stand for a message
        flow = Flow(messages)
        if not flow.fine(tree, "value"):
            return False
        if flow.messages == messages:
            return True
        messages = flow.messages


class Flow:
    """Follows the messages through a syntax tree.

    Args:
        messages: names that stand for a message, `none` included.
    """

    def __init__(self, messages: Iterable[str]) -> None:
        self.messages = set(messages)

    def fine(self, node: nodes.Node | None, place: str) -> bool:
        """Whether no content is looked at below a node.

        Args:
            place: what becomes of its value: it is written (`out`), only its truth counts (`test`),
                or anything else (`value`).
        """
        if node is None:
            return True
        if not isinstance(node, WALKED):
            return False
        if isinstance(node, nodes.Getitem | nodes.Getattr):
            return self.fine_part(node, place)
        if isinstance(node, nodes.Macro) and asks_contents(node):
            return False  # its text may be looked at where it is called
        if isinstance(node, nodes.Name):
            whole = node.ctx == "load" and node.name in {"messages", "loop", *self.messages}
            return not whole or (place == "test" and node.name != "loop")
        if isinstance(node, nodes.Assign) and self.one_message(node.node):
            return self.call_message(node.target)
        if isinstance(node, nodes.For) and is_name(node.iter, "messages"):
            rest = (node.test, *node.body, *node.else_)
            alone = not node.recursive and self.call_message(node.target)
            return alone and all(self.fine(child, "value") for child in rest)
        return all(self.fine(child, where) for child, where in parts(node, place))

    def fine_part(self, node: nodes.Getitem | nodes.Getattr, place: str) -> bool:
        """The same of `x[key]` and `x.key`."""
        key = node.attr if isinstance(node, nodes.Getattr) else constant(node.arg)
        if is_name(node.node, "loop"):
            return key not in OF_NEIGHBOURS
        if self.a_message(node.node):
            if not isinstance(key, str) or hasattr(dict, key):  # `message.get`, say
                return False
            return key != "content" or place in ("out", "test")
        known = key is not None or self.fine(getattr(node, "arg", None), "value")
        return known and self.fine(node.node, "value")

    def a_message(self, node: nodes.Node) -> bool:
        """Whether an expression is a message: a name of one, or `messages[0]`."""
        if isinstance(node, nodes.Getitem):
            return is_name(node.node, "messages") and isinstance(constant(node.arg), int)
        return isinstance(node, nodes.Name) and node.name in self.messages

    def one_message(self, node: nodes.Node) -> bool:
        """Whether a value is a message or, under a condition, none."""
        if isinstance(node, nodes.CondExpr) and self.fine(node.test, "test"):
            other = node.expr2
            nothing = other is None or (isinstance(other, nodes.Const) and other.value is None)
            return nothing and self.a_message(node.expr1)
        return self.a_message(node)

    def call_message(self, target: nodes.Node) -> bool:
        """Remember a name of a message."""
        if isinstance(target, nodes.Name):
            self.messages.add(target.name)
        return isinstance(target, nodes.Name)


def parts(node: nodes.Node, place: str) -> list[tuple[nodes.Node, str]]:
    """The nodes right below one, and what becomes of their values."""
    if isinstance(node, nodes.If | nodes.CondExpr):
        rest = [child for child in node.iter_child_nodes() if child is not node.test]
        inner = place if isinstance(node, nodes.CondExpr) else "value"
        return [(node.test, "test"), *((child, inner) for child in rest)]
    if isinstance(node, nodes.Output | nodes.Not):
        place = "out" if isinstance(node, nodes.Output) else "test"
    elif not isinstance(node, nodes.And | nodes.Or) and (place, type(node)) != ("out", nodes.Add):
        place = "value"
    return [(child, place) for child in node.iter_child_nodes()]


def asks_contents(node: nodes.Node) -> bool:
    """Whether `content` is asked for anywhere below a node."""
    keys = [n.attr for n in node.find_all(nodes.Getattr)]
    return "content" in [*keys, *(constant(n.arg) for n in node.find_all(nodes.Getitem))]


def constant(node: nodes.Node) -> object:
    return node.value if isinstance(node, nodes.Const) else None


def is_name(node: nodes.Node, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.name == name


def hold(contents: Sequence[str]) -> list[str]:
    """What stands for contents that are not known yet."""
    return [f"{BEGIN}{i}{END}" if content else "" for i, content in enumerate(contents)]


def outline(text: str) -> tuple[list[str], list[int]]:
    """A text with held places: what is written around them, and which content goes into each."""
    first, *rest = text.split(BEGIN)
    pairs = [part.split(END, 1) for part in rest]
    return [first, *(after for _, after in pairs)], [int(number) for number, _ in pairs]


def fill(around: Sequence[str], which: Sequence[int], contents: Sequence[str]) -> str:
    """The text of an outline with its contents."""
    out = [around[0]]
    for i, after in zip(which, around[1:], strict=True):
        out += (contents[i], after)
    return "".join(out)
