"""How ratios are formed of rounds, and what their intervals say."""

import random
import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import ratio


def test_the_ratio_is_the_median_of_the_rounds_ratios_not_the_ratio_of_medians() -> None:
    # The machine was slower in each round than in the one before it.
    ours, theirs = {0: 110.0, 1: 55.0, 2: 11.0}, {0: 100.0, 1: 50.0, 2: 10.0}
    found = ratio.of_rounds(ours, theirs)
    assert found is not None
    assert found.value == pytest.approx(1.1)
    assert found.interval == pytest.approx((1.1, 1.1))


def test_only_rounds_that_both_have_are_compared() -> None:
    found = ratio.of_rounds({0: 2.0, 2: 3.0, 5: 1.0}, {1: 9.0, 2: 1.0})
    assert found == ratio.Ratio(3.0, None)
    assert ratio.of_rounds({0: 1.0}, {1: 1.0}) is None


def test_an_interval_needs_three_rounds() -> None:
    two = {0: 2.0, 1: 4.0}
    found = ratio.of_rounds(two, {0: 1.0, 1: 1.0})
    assert found == ratio.Ratio(3.0, None)
    assert found.verdict() == "-"


def test_the_interval_of_few_values_reaches_from_the_least_to_the_most() -> None:
    assert ratio.median_interval((3.0, 1.0, 2.0)) == (1.0, 3.0)


def test_the_interval_is_the_same_each_time_and_narrows_with_more_values() -> None:
    draw = random.Random(7)
    values = tuple(draw.gauss(1.0, 0.1) for _ in range(400))
    low, high = ratio.median_interval(values)
    ratio.median_interval.cache_clear()
    assert (low, high) == ratio.median_interval(values)
    assert low < statistics.median(values) < high
    few_low, few_high = ratio.median_interval(values[:15])
    assert high - low < few_high - few_low


def test_the_interval_of_a_median_covers_the_true_one_about_as_often_as_it_says() -> None:
    draw = random.Random(11)
    covered = 0
    for _ in range(40):
        low, high = ratio.median_interval(tuple(draw.gauss(1.0, 0.1) for _ in range(9)))
        covered += low <= 1.0 <= high
    assert 34 <= covered <= 40


@pytest.mark.parametrize(
    ("interval", "target", "verdict"),
    [
        ((1.0, 1.2), 1.0, "lead"),
        ((0.99, 1.2), 1.0, "even"),
        ((0.9, 1.0), 1.0, "even"),
        ((0.9, 0.999), 1.0, "behind"),
        ((0.9, 0.999), 0.78, "lead"),
        (None, 1.0, "-"),
    ],
)
def test_the_verdict_is_the_side_of_the_target_the_interval_lies_on(
    interval: tuple[float, float] | None, target: float, verdict: str
) -> None:
    assert ratio.Ratio(1.0, interval).verdict(target) == verdict


def test_a_ratio_is_written_with_its_interval() -> None:
    assert str(ratio.Ratio(1.234, (1.1, 1.399))) == "1.23 (1.10-1.40)"
    assert str(ratio.Ratio(1.234, None)) == "1.23"


def test_the_geometric_mean_of_double_and_half_is_one() -> None:
    assert ratio.geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
    assert ratio.geometric_mean([]) is None
