"""One logged quantity over the steps: smoothing and thinning for the eye."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise

SMOOTH_ABOVE = 200
LARGEST = 1e300  # sums and differences of values must stay finite


class Series:
    """Values by step; what the log could not give (null, NaN, beyond 1e300) is kept as NaN."""

    def __init__(
        self, name: str, steps: Sequence[float] = (), values: Sequence[float | None] = ()
    ) -> None:
        self.name = name
        self.steps = array("d")
        self.values = array("d")
        self._smoothed: Series | None = None
        for step, value in zip(steps, values, strict=True):
            self.add(step, value)

    def add(self, step: float, value: float | None) -> None:
        """Append a value. A step that goes back drops what it overtakes: the run was resumed."""
        self._smoothed = None
        while self.steps and self.steps[-1] >= step:
            self.steps.pop()
            self.values.pop()
        self.steps.append(step)
        try:
            number = math.nan if value is None else float(value)
        except OverflowError:
            number = math.nan
        self.values.append(number if abs(number) < LARGEST else math.nan)

    def finite(self) -> list[float]:
        return [value for value in self.values if not math.isnan(value)]

    def gaps(self) -> list[int]:
        """Steps whose value is not finite."""
        pairs = zip(self.steps, self.values, strict=True)
        return [int(step) for step, value in pairs if math.isnan(value)]

    def smoothed(self) -> Series:
        """A moving mean when the series is long and noisy, the series itself otherwise.

        The window shrinks towards the first step, so that a steep start is not flattened, and
        leans back at the last one, so that the end shows where the curve arrived and not its noise.
        """
        if self._smoothed is None:
            is_long = len(self.values) > SMOOTH_ABOVE
            self._smoothed = self._moving_mean() if is_long and self.is_noisy() else self
        return self._smoothed

    def _moving_mean(self) -> Series:
        count = len(self.values)
        half = max(2, count // 60)
        known = [0 if math.isnan(value) else 1 for value in self.values]
        numbers = [0.0 if math.isnan(value) else value for value in self.values]
        sums = [0.0, *accumulate(numbers)]
        counts = [0, *accumulate(known)]
        smooth = Series(self.name)
        smooth.steps = self.steps
        for i in range(count):
            left = min(half, i)
            right = min(left, count - 1 - i)
            total = counts[i + right + 1] - counts[i - left]
            mean = (sums[i + right + 1] - sums[i - left]) / total if known[i] else math.nan
            smooth.values.append(mean)
        return smooth

    def is_noisy(self) -> bool:
        """Whether it travels much further than from its lowest to its highest value."""
        known = self.finite()
        travelled = sum(abs(b - a) for a, b in pairwise(known))
        return bool(known) and travelled > 4 * (max(known) - min(known))

    def thinned(self, limit: int) -> Series:
        """At most about `limit` points: the lowest and the highest of each slice, in order.

        Slices keep their extremes because a spike is the one thing a reader looks for. A slice
        without a finite value stays as a gap.
        """
        count = len(self.values)
        if count <= limit:
            return self
        slices = max(1, limit // 2)
        thin = Series(self.name)
        for i in range(slices):
            span = range(i * count // slices, (i + 1) * count // slices)
            known = [j for j in span if not math.isnan(self.values[j])]
            if not known:
                picked = [span[0]]
            else:
                value_of = self.values.__getitem__
                picked = sorted({min(known, key=value_of), max(known, key=value_of)})
            for j in picked:
                thin.steps.append(self.steps[j])
                thin.values.append(self.values[j])
        return thin

    def nearest(self, step: float, within: float) -> float | None:
        """The finite value logged closest to `step`, no further away than `within`."""
        i = bisect_left(self.steps, step)
        near = [j for j in (i - 1, i) if 0 <= j < len(self.steps)]
        near = [j for j in near if abs(self.steps[j] - step) <= within]
        near = [j for j in near if not math.isnan(self.values[j])]
        if not near:
            return None
        return self.values[min(near, key=lambda j: abs(self.steps[j] - step))]

    def last(self) -> float | None:
        """The last finite value."""
        return next((v for v in reversed(self.values) if not math.isnan(v)), None)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted `values` lie (nearest rank)."""
    return values[min(len(values) - 1, max(0, round(share * (len(values) - 1))))]
