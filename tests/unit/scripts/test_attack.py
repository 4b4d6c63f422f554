"""Which ends of a task `make attack` accepts."""

from __future__ import annotations

import pytest

from scripts.attack import DROPPED, EARLY, NO_END, TIMED_OUT, End


@pytest.mark.parametrize("end", [End(TIMED_OUT, late=0.1, gone=4.9), End(EARLY, late=-0.5, gone=0.2)])
def test_a_timeout_in_time_and_a_success_before_the_alarm_are_good(end):
    assert end.good


def test_a_timeout_that_ends_the_task_late_is_bad():
    assert not End(TIMED_OUT, late=5.1, gone=5.2).good


def test_a_timeout_whose_process_lives_on_is_bad():
    assert not End(TIMED_OUT, late=0.1, gone=30.0).good


@pytest.mark.parametrize("ended", [DROPPED, NO_END, "BaseExceptionGroup", "AirflowException"])
def test_any_other_end_is_bad(ended):
    assert not End(ended, late=0.1, gone=0.2).good
