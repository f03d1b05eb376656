"""What a run prints while it trains, without a terminal."""

from __future__ import annotations

import pytest

from advgen import progress
from advgen.progress import Progress


def test_the_time_left_counts_from_the_first_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown = Progress(True)
    for now, share in ((100.0, 0.1), (130.0, 0.4)):  # a hundred seconds went into data
        clock[0] = now
        shown.update(1, share, {})
    first, second = capsys.readouterr().err.splitlines()
    assert "left" not in first and second.endswith("1.0 min left")
