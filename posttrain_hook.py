"""Lets Python run a recipe: `python recipe.yaml` is then `posttrain run recipe.yaml`.

Before Python reads a script it asks the hooks in `sys.path_hooks` about the path, as it does for a
zip application. The one added here answers for the script that is being run, and only when that is
a YAML file; so `accelerate launch recipe.yaml` and `torchrun recipe.yaml` work as they stand.

`posttrain.pth` imports this at every interpreter start, recipe or not: hence no import that the
start has not paid for already, and nothing of `posttrain` until a recipe is run.
"""

import os
import sys

SUFFIXES = (".yaml", ".yml")
PROGRAM = """\
import sys
from posttrain.cli import main
if __name__ == "__main__":
    main(["run", *sys.argv])
"""


class RecipeFinder:
    """Finds and loads one module, `__main__`: the program that runs the recipe at `path`."""

    def __init__(self, path):
        self.path = path

    def find_spec(self, name, target=None):
        if name != "__main__":
            return None
        from importlib.machinery import ModuleSpec

        # Not a subclass of importlib.abc.Loader: that module would slow every interpreter start.
        return ModuleSpec(name, self, origin=self.path)  # type: ignore[arg-type]

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(self.get_code(module.__name__), vars(module))

    def get_code(self, name):
        return compile(PROGRAM, "<recipe>", "exec")

    def get_source(self, name):
        return PROGRAM


def find_recipe(path):
    """The path hook. Raises ImportError, which sends Python on, for all but the running recipe."""
    if not path.endswith(SUFFIXES) or not _is_running(path):
        raise ImportError("not the recipe that is being run", path=path)
    return RecipeFinder(path)


def _is_running(path):
    argv = getattr(sys, "argv", None) or [""]  # absent when Python is embedded in a program
    return os.path.abspath(path) == os.path.abspath(argv[0]) and os.path.isfile(path)


sys.path_hooks.append(find_recipe)
