"""A line search for the strong Wolfe conditions, on plain numbers and NumPy vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np

Vector = np.ndarray
Objective = Callable[[float], tuple[float, Vector]]

ENOUGH = 1e-4  # c1: part of the promised decrease that is demanded
FLATTER = 0.9  # c2: the slope must shrink to this part
MOST_STEPS = 25
CLOSE = 0.1  # a trial nearer to an end of the bracket than this part of it is suspect


@dataclass(frozen=True, eq=False)
class Point:
    """A step length with the objective, its gradient and its slope along the direction there."""

    t: float
    value: float
    gradient: Vector
    slope: float


def strong_wolfe(
    objective: Objective, direction: Vector, start: Point, first: float, tolerance: float = 1e-9
) -> tuple[Point, int]:
    """A point along `direction` with sufficient decrease and a flat enough slope (Nocedal and Wright,
    Numerical Optimization, algorithms 3.5 and 3.6); if none is found, the best point of the bracket.

    objective(t)  value and gradient at start + t * direction
    start         the point at t = 0; its slope is negative
    first         the first step length to try
    Returns the point and the number of evaluations.
    """
    search = _Search(objective, direction, start)
    low, high, done = search.bracket(first)
    reach = float(np.abs(direction).max())
    doubted = False
    while not done and search.steps < MOST_STEPS and abs(high.t - low.t) * reach >= tolerance:
        t, doubted = _trial(low, high, doubted)
        point = search.at(t)
        search.steps += 1
        if search.too_high(point) or point.value >= low.value:
            high = point
            if high.value < low.value:
                low, high = high, low
            continue
        done = search.flat(point)
        if not done and point.slope * (high.t - low.t) >= 0:
            high = low
        low = point
    return low, search.evaluations


class _Search:
    def __init__(self, objective: Objective, direction: Vector, start: Point) -> None:
        self.objective, self.direction, self.start = objective, direction, start
        self.evaluations = self.steps = 0

    def at(self, t: float) -> Point:
        self.evaluations += 1
        value, gradient = self.objective(t)
        return Point(t, value, gradient, float(gradient @ self.direction))

    def too_high(self, point: Point) -> bool:
        return point.value > self.start.value + ENOUGH * point.t * self.start.slope

    def flat(self, point: Point) -> bool:
        return abs(point.slope) <= -FLATTER * self.start.slope

    def bracket(self, t: float) -> tuple[Point, Point, bool]:
        """(lower end, higher end, whether the lower end is already good): an interval around a good point."""
        previous, point = self.start, self.at(t)
        while self.steps < MOST_STEPS:
            if self.too_high(point) or (self.steps > 1 and point.value >= previous.value):
                return (*_sorted(previous, point), False)
            if self.flat(point):
                return point, point, True
            if point.slope >= 0:
                return (*_sorted(previous, point), False)
            nearest = point.t + 0.01 * (point.t - previous.t)
            t = minimum_of_cubic(previous, point, nearest, 10 * point.t)
            previous, point = point, self.at(t)
            self.steps += 1
        return (*_sorted(self.start, point), False)


def _sorted(a: Point, b: Point) -> tuple[Point, Point]:
    return (a, b) if a.value <= b.value else (b, a)


def _trial(low: Point, high: Point, doubted: bool) -> tuple[float, bool]:
    """The next step length inside a bracket, and whether it is close to an end.

    The second such trial in a row, or one at the very end, is moved inside: else the bracket would hardly
    shrink.
    """
    first, last = min(low.t, high.t), max(low.t, high.t)
    t = minimum_of_cubic(low, high, first, last)
    margin = CLOSE * (last - first)
    if min(last - t, t - first) >= margin:
        return t, False
    if doubted or t >= last or t <= first:
        return (last - margin if abs(t - last) < abs(t - first) else first + margin), False
    return t, True


def minimum_of_cubic(a: Point, b: Point, low: float, high: float) -> float:
    """Where the cubic through two points with their slopes is least, clamped to [low, high]."""
    if a.t > b.t:
        a, b = b, a
    mean = a.slope + b.slope - 3 * (a.value - b.value) / (a.t - b.t)
    square = mean * mean - a.slope * b.slope
    if square < 0:
        return (low + high) / 2
    root = sqrt(square)
    t = b.t - (b.t - a.t) * ((b.slope + root - mean) / (b.slope - a.slope + 2 * root))
    return min(max(t, low), high)
