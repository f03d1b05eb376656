"""Ctrl-C before and around training. Imports of large libraries may swallow a KeyboardInterrupt; here it is remembered."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

INTERRUPTED = 130

_asked = False


def asked() -> bool:
    """Whether Ctrl-C was pressed since ``watched`` began, also where the exception got lost."""
    return _asked


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Remember Ctrl-C inside the block; a second one ends the process at once."""
    global _asked

    def remember(number: int, frame: Any) -> None:
        global _asked
        if _asked:
            os._exit(INTERRUPTED)
        _asked = True
        raise KeyboardInterrupt

    _asked = False
    try:
        before = signal.signal(signal.SIGINT, remember)
    except ValueError:  # not the main thread: signals stay the caller's
        yield
        return
    try:
        yield
    finally:
        _asked = False
        signal.signal(signal.SIGINT, before)
