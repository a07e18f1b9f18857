"""Aya, whole or in one language."""

from __future__ import annotations

import pytest

from posttrain.sources.adapters.aya import Aya
from posttrain.sources.adapters.base import LeftOut

RAW = {"inputs": "p", "targets": "a", "language": "Tamil", "language_code": "tam"}


def test_all_languages_or_one() -> None:
    assert Aya()(RAW) == Aya(language="tam")(RAW) == [{"prompt": "p", "completion": "a"}]
    with pytest.raises(LeftOut, match="another language"):
        Aya(language="deu")(RAW)
