"""Worker processes give what a plain map gives, and leave nothing behind."""

import multiprocessing
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from segslim.data.workers import in_order
from segslim.errors import UserError

KILLED_PARENT = """
import os, signal
from segslim.data.workers import in_order
for _ in in_order(lambda item: bytes(1 << 20), range(1000), 2):
    print("working", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("num_workers", [0, 1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_results_come_in_order_whatever_the_number_of_workers(num_workers, count):
    assert list(in_order(lambda item: item * item, range(count), num_workers)) == [i * i for i in range(count)]


def test_workers_are_other_processes():
    assert os.getpid() not in set(in_order(lambda item: os.getpid(), range(4), 2))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_exception_arrives_as_itself_after_the_results_before_it(num_workers):
    def fail_at_three(item):
        if item == 3:
            raise UserError("three is too many")
        return item

    results = in_order(fail_at_three, range(9), num_workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match=r"^three is too many$"):
        next(results)
    assert not multiprocessing.active_children()


def test_leaving_early_ends_the_workers():
    results = in_order(lambda item: np.zeros(1 << 20), range(1000), 3)
    next(results)
    assert len(multiprocessing.active_children()) == 3
    results.close()
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_reported():
    with pytest.raises(UserError, match=r"ended with code -9 .* lower num_workers"):
        list(in_order(lambda item: os.kill(os.getpid(), signal.SIGKILL), range(3), 2))


def test_workers_end_when_their_parent_is_killed():
    process = subprocess.Popen([sys.executable, "-c", KILLED_PARENT], stdout=subprocess.PIPE)
    # The workers inherit the standard output: it ends when the last of them has.
    output, _ = process.communicate(timeout=30)
    assert output == b"working\n"
    assert process.returncode == -signal.SIGKILL


def test_opencv_works_in_workers_after_it_ran_threads_in_the_parent():
    image = np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), np.uint8)
    expected = cv2.GaussianBlur(image, (0, 0), 3)
    assert all(
        np.array_equal(r, expected) for r in in_order(lambda item: cv2.GaussianBlur(image, (0, 0), 3), range(2), 2)
    )
