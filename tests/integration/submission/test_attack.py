"""A sample of `make attack`: a task that is killed or suspended at any step pays once, and is never stuck."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.submission.attack import WAYS, attack


@pytest.mark.parametrize(("way", "offset"), list(zip(WAYS, (3, 11, 19), strict=True)))
def test_nothing_is_paid_twice_and_nothing_is_stuck(way: str, offset: int, tmp_path: Path) -> None:
    report = attack(tmp_path, ["answer lost"], (way,), every=31, offset=offset)

    assert report.failures == []
    assert report.struck >= 3
