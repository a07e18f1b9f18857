"""Verifiers for a worker: by name or composed, with what `verify` promises of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from posttrain.errors import PosttrainError
from posttrain.formats import Verdict
from posttrain.verifiers import compose, verify


def verifier_of(spec: Any) -> Callable[..., Verdict]:
    """A callable that never raises on an odd completion.

    Raises:
        VerifierError: the specification names what does not exist.
    """
    verifier = compose(spec)

    def checked(completion: Any, ground_truth: Any, **row: Any) -> Verdict:
        if isinstance(spec, str):
            return verify(spec, completion, ground_truth, **row)
        try:
            return verifier(completion, ground_truth, **row)
        except PosttrainError:
            raise
        except Exception as error:
            return Verdict(0.0, f"failed on the completion: {type(error).__name__}: {error}")

    return checked
