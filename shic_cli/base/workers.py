"""Work that is spread over processes: one on each core, results in their order."""

from __future__ import annotations

import logging
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from shic_cli.base.cores import cores
from shic_cli.base.errors import ShicError

log = logging.getLogger("shic")
T = TypeVar("T")
R = TypeVar("R")
# A process starts in the time of about 50 pictures; with fewer than twice as many it would not pay.
LEAST = 100
AHEAD = 4  # items that each process has waiting, so that none is idle while results are written
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_work: Callable[[Any], Any] | None = None  # in a worker: what it does with each item


def number_of(asked: int | None, items: int, least: int = LEAST, alone: str = "") -> int:
    """How many processes to use for `items`: as many as are `asked` for, or None for what pays here.

    A process pays from `least` items on. `alone` says why there can be one only; "" if there can be more.
    """
    if alone:
        if (asked or 1) > 1:
            log.info("one worker: %s", alone)
        return 1
    if asked is not None:
        return max(1, min(asked, items))
    number = max(1, min(cores(), items // least))
    if number > 1:
        log.info("%d workers, one on each core; the file is the same with any number of --workers", number)
    return number


def spread(
    make: Callable[..., Callable[[T], R]], given: tuple, items: Sequence[T], number: int
) -> Iterator[R]:
    """The results of `make(*given)` for each of `items`, in their order, by `number` processes.

    Each process calls `make` once and works with one thread. `make`, `given` and the results have to be
    picklable. One process is this process. ShicError if a process dies, and the errors of `make`.
    `given` is handed over as bytes: tensors would go through /dev/shm, which is small in a container.
    """
    work = make(*given)  # here too, since an error in a process that starts would only be told as its end
    if number == 1:
        yield from map(work, items)
        return
    with _quiet_and_of_one_thread():
        pool = ProcessPoolExecutor(number, get_context("spawn"), _start, (make, pickle.dumps(given)))
        waiting: deque[Future] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(_do, item))
                if len(waiting) == AHEAD * number:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise ShicError(
                f"one of {number} workers was killed",
                "give fewer --workers if the memory is too small; what is finished is kept",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """In the block torch has one thread in this process, as in workers: with more, last digits may differ."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def threads_for(asked: int | None, items: int, least: int) -> Iterator[None]:
    """In the block torch has one thread if `items` may be spread: a number is `asked` for, or they are many.

    `items` is the number of all, whether finished or not, so that a run that goes on gives the same digits.
    Few items keep the threads, since no process would make up for them.
    """
    if asked is None and items < 2 * least:
        yield
        return
    with one_thread():
        yield


@contextmanager
def _quiet_and_of_one_thread() -> Iterator[None]:
    """Processes that start in the block have one thread, and show warnings of libraries with -v alone."""
    set_: dict[str, str] = dict.fromkeys(THREADS, "1")
    if not log.isEnabledFor(logging.DEBUG):
        set_["PYTHONWARNINGS"] = "ignore"
    before = {name: os.environ.get(name) for name in set_}
    os.environ.update(set_)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start(make: Callable[..., Callable[[Any], Any]], given: bytes) -> None:
    """Prepare a worker. Ctrl-C and messages are the first process's business."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log.addHandler(logging.NullHandler())
    cv2.setNumThreads(1)
    global _work
    _work = make(*pickle.loads(given))


def _do(item: Any) -> Any:
    assert _work is not None
    return _work(item)
