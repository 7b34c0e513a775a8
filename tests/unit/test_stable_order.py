"""Sorting by counting agrees with NumPy's stable sort."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_train.data.interactions import ParsedRows, distinct_rows, distinct_share
from recsys_train.data.stable_order import order_of_times, sorted_by_code
from recsys_train.data.times import MISSING_TIME

N_ROWS = 2_000


@pytest.mark.parametrize(("n_codes", "span"), [(1, 1), (7, 7), (100_000, 99_999)])
def test_codes_are_sorted_stably(n_codes: int, span: int) -> None:
    codes = np.random.default_rng(0).integers(0, span, N_ROWS).astype(np.int32)

    by_code = sorted_by_code(codes, n_codes, codes * 2)

    expected = np.argsort(codes, kind="stable")
    assert by_code.order.tolist() == expected.tolist()
    assert by_code.values.tolist() == (codes[expected] * 2).tolist()
    assert np.diff(by_code.starts).tolist() == np.bincount(codes, minlength=n_codes).tolist()


@pytest.mark.parametrize(
    ("first", "span", "unit"),
    [
        (1_700_000_000_000_000, 100, 1_000_000),
        (1_700_000_000_000_000, 60_000_000, 1_000_000),
        (-5_000_000_000, 10_000_000, 1_000),
        (1_700_000_000_000_000, 2**46, 1),
        (-(2**62), 2**63 - 1, 1),
    ],
)
@pytest.mark.parametrize("has_missing", [False, True])
def test_times_are_sorted_stably_and_missing_ones_come_first(
    first: int, span: int, unit: int, *, has_missing: bool
) -> None:
    generator = np.random.default_rng(1)
    times = first + generator.integers(0, span, N_ROWS) * unit
    times[1::2] = times[::2]  # equal times
    if has_missing:
        times[generator.integers(0, N_ROWS, 50)] = MISSING_TIME

    order = order_of_times(times)

    assert order is not None
    assert order.tolist() == np.argsort(times, kind="stable").tolist()


def test_sorted_times_need_no_order() -> None:
    assert order_of_times(np.array([MISSING_TIME, 3, 3, 9])) is None
    assert order_of_times(np.zeros(0, np.int64)) is None


@pytest.mark.parametrize("has_file_rows", [False, True])
def test_the_earliest_row_of_each_pair_is_kept_in_order_of_time(*, has_file_rows: bool) -> None:
    generator = np.random.default_rng(2)
    users, items = (generator.integers(0, n, N_ROWS).astype(np.int32) for n in (40, 30))
    times = generator.integers(0, 50, N_ROWS) * 1_000_000
    file_rows = generator.permutation(N_ROWS) if has_file_rows else None
    numbers = np.arange(N_ROWS) if file_rows is None else file_rows

    kept = distinct_rows([ParsedRows(users, items, times, file_rows)])

    earliest: dict[tuple[int, int], tuple[int, int]] = {}
    for user, item, time, row in zip(users.tolist(), items.tolist(), times.tolist(), numbers.tolist(), strict=True):
        earliest[user, item] = min(earliest.get((user, item), (time, row)), (time, row))
    expected = sorted((time, row, *pair) for pair, (time, row) in earliest.items())
    assert kept.times.tolist() == [time for time, *_ in expected]
    assert list(zip(kept.users.tolist(), kept.items.tolist(), strict=True)) == [(u, i) for _, _, u, i in expected]
    assert kept.file_rows is None or kept.file_rows.tolist() == [row for _, row, *_ in expected]


def test_the_share_of_distinct_pairs_is_estimated() -> None:
    n_pairs = 100_000
    users, items = np.divmod(np.arange(n_pairs, dtype=np.int32), np.int32(500))
    once = ParsedRows(users, items, np.zeros(n_pairs, np.int64))
    frequent = ParsedRows(np.zeros(n_pairs, np.int32), np.zeros(n_pairs, np.int32), np.zeros(n_pairs, np.int64))

    assert distinct_share([once]) == pytest.approx(1, abs=0.1)
    assert distinct_share([once] * 4) == pytest.approx(0.25, abs=0.03)
    assert distinct_share([once, *[frequent] * 9]) == pytest.approx(0.1, abs=0.02)
    assert distinct_share([frequent]) < 0.001
