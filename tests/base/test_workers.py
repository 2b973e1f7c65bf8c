"""How many cores and processes are used, and that results come in order whatever their number."""

from __future__ import annotations

import os

import pytest
import torch
from spread_work import at_two, doubler, refused

from shic_cli.base import cores as cores_module
from shic_cli.base.cores import cores
from shic_cli.base.errors import InputError, ShicError
from shic_cli.base.workers import LEAST, THREADS, number_of, spread, threads_for


def test_the_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores_module, "_quota", lambda: 1000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert cores() == 16
    monkeypatch.setattr(cores_module, "_quota", lambda: 5)
    assert cores() == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert cores() == 4
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {7})
    assert cores() == 1


def test_auto_takes_no_more_workers_than_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shic_cli.base.workers.cores", lambda: 4)
    assert [number_of(None, LEAST * n) for n in (0, 1, 2, 3, 9)] == [1, 1, 2, 3, 4]
    assert [number_of(None, n, 2) for n in (1, 3, 4, 99)] == [1, 1, 2, 4]
    assert number_of(8, 3) == 3 and number_of(2, 10**6) == 2 and number_of(5, 0) == 1


def test_what_may_be_spread_is_computed_by_one_thread_with_any_number() -> None:
    """Sums in another order change last digits; few items keep the threads, unless a number is asked for."""
    before, seen = torch.get_num_threads(), []
    try:
        torch.set_num_threads(3)
        for asked, items in ((None, 9), (None, 10), (1, 2), (2, 2)):
            with threads_for(asked, items, 5):
                seen.append(torch.get_num_threads())
        assert seen == [3, 1, 1, 1] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("number", [1, 2])
def test_results_come_in_their_order(number: int) -> None:
    before = {name: os.environ.get(name) for name in THREADS}
    if number == 1:
        assert list(spread(doubler, (1,), range(30), 1)) == [2 * i + 1 for i in range(30)]
    else:
        assert list(spread(at_two, ("none",), [5, 4, 3] * 5, 2)) == [5, 4, 3] * 5
    assert {name: os.environ.get(name) for name in THREADS} == before


def test_a_workers_error_comes_whole_and_a_death_is_told() -> None:
    with pytest.raises(InputError) as caught:
        list(spread(at_two, ("error",), range(4), 2))
    assert (caught.value.message, caught.value.hint) == ("two: is refused", "give three")
    with pytest.raises(InputError, match="all: is refused"):
        list(spread(refused, (), range(4), 2))
    with pytest.raises(ShicError, match="killed"):
        list(spread(at_two, ("death",), range(4), 2))
