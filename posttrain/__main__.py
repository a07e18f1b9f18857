"""`python -m posttrain recipe.yaml` is `posttrain run recipe.yaml`; so are other commands."""

from __future__ import annotations

from posttrain.cli import main

if __name__ == "__main__":
    main()
