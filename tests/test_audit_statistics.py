"""The statistics of an audit against values computed by hand and by other means."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxsynth.audit import page, statistics

SHARES = st.integers(0, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(SHARES.filter(lambda pair: pair[1]))
@settings(max_examples=60, deadline=None)
def test_shares_have_wilsons_interval(pair):
    count, total = pair
    expected = stats.binomtest(count, total).proportion_ci(0.95, "wilson")
    assert statistics.wilson(count, total) == pytest.approx(tuple(expected), abs=1e-6)


def test_a_share_by_hand():
    row = statistics.share_row(np.array([True, False, False, False]))
    assert (row["n"], row["count"], row["share"]) == (4, 1, 0.25)
    assert (row["low"], row["high"]) == pytest.approx((0.04559, 0.69936), abs=1e-4)
    assert statistics.wilson(0, 0) == (0.0, 1.0)


def test_a_threshold_flags_what_is_at_it():
    rows = statistics.flagged(np.array([0.1, 0.5, 0.9]), (0.5, 0.91))
    assert [row["count"] for row in rows] == [2, 0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0, 1))
@settings(deadline=None)
def test_a_higher_threshold_flags_no_more(scores, step):
    low, high = statistics.flagged(np.array(scores), (0.3, 0.3 + step))
    assert high["count"] <= low["count"] and low["low"] <= low["share"] <= low["high"]


@pytest.mark.parametrize("n, rank", [(3, 0), (6, 0), (8, 0), (9, 1), (20, 5), (100, 39)])
def test_the_interval_of_a_median_is_of_order_statistics(n, rank):
    """The ranks are those of tables of the sign test at 5 %."""
    row = statistics.median_row(np.arange(n)[::-1])
    assert (row["low"], row["high"], row["n"]) == (rank, n - 1 - rank, n)
    assert row["median"] == (n - 1) / 2 and statistics.median_row(np.zeros(0)) == {"n": 0}


def test_calibration_by_hand():
    scores = np.array([0.05, 0.05, 0.95, 1.0])
    rows = statistics.calibration(scores, np.array([False, True, True, True]))
    assert [(r["from"], r["n"], r["count"]) for r in rows] == [(0.0, 2, 1), (0.9, 2, 2)]
    assert [r["score"] for r in rows] == pytest.approx([0.05, 0.975])
    assert statistics.calibration_error(rows) == pytest.approx((2 * 0.45 + 2 * 0.025) / 4)


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.booleans()), min_size=2),
)
@settings(deadline=None)
def test_the_auc_counts_pairs(pairs):
    scores, truth = (np.array(column) for column in zip(*pairs, strict=True))
    pos, neg = scores[truth], scores[~truth]
    if not len(pos) or not len(neg):
        assert statistics.auc(scores, truth) is None
        return
    wins = [(a > b) + 0.5 * (a == b) for a in pos for b in neg]
    assert statistics.auc(scores, truth) == pytest.approx(np.mean(wins))


def test_rates_and_disputes():
    scores, truth = np.array([0.9, 0.4, 0.6, 0.1]), np.array([True, True, False, False])
    [row] = statistics.rates(scores, truth, (0.5,))
    assert (row["found_share"], row["false_alarms_share"]) == (0.5, 0.5)
    assert statistics.dispute(scores, np.array([0.2, 0.9, 0, 0])).tolist() == pytest.approx(
        [0.8, 0.1, 0.6, 0.1]
    )
    assert statistics.quantiles(np.arange(5))["median"] == 2


def test_tables_are_readable():
    row = {"model": "a"} | statistics.share_row(np.array([True, False, False, False]))
    [shown] = page.readable([row])
    assert shown == {"model": "a", "share (95 % interval)": "25.0 % (4.6 to 69.9; 1 of 4)"}
    [shown] = page.readable([{"x": 1} | statistics.median_row(np.array([0.2, 0.4, 1e-5]))])
    assert shown == {"x": 1, "n": 3, "median (95 % interval)": "0.2 (1e-05 to 0.4)"}
    rows = [{"t": t, "m": m, "v": t + m} for t in "ab" for m in "xy"]
    beside = page.side_by_side(rows, "t", lambda r: r["m"], lambda r: r["v"])
    assert beside == [{"t": "a", "x": "ax", "y": "ay"}, {"t": "b", "x": "bx", "y": "by"}]
