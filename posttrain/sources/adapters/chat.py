"""Rows that are in one of our own shapes already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from posttrain.errors import DataError
from posttrain.formats import Row, shown
from posttrain.sources.adapters.base import as_where, require


@dataclass(frozen=True)
class Chat:
    """Passes rows on as they are. Tülu 3's mixtures, RLVR sets, No Robots, NuminaMath-TIR, ...

        {"id": "oasst1_5921", "source": "ai2-adapt-dev/oasst1_converted", "messages": [
          {"role": "user", "content": "Create a snippet of Terraform HCL code that create an …"},
          {"role": "assistant", "content": "Sure, here's an example Terraform HCL code that …"}]}

    Attributes:
        where: column -> the value or values that a row must have there, for one part of a mixture.
    """

    where: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", as_where(self.where))

    def __call__(self, raw: Any) -> list[Row]:
        if not isinstance(raw, Mapping):
            raise DataError(f"a row must be an object with named fields, got {shown(raw)}")
        require(raw, self.where)
        return [dict(raw)]
