"""Ctrl-C before and around training. Imports of large libraries may swallow a KeyboardInterrupt; here it is remembered."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

INTERRUPTED = 130

NOTHING_SAVED = "interrupted; nothing was saved"

# Signals that save and end a run. No system has all of them: SIGBREAK is Ctrl-Break and exists only on Windows.
SAVING = ("SIGINT", "SIGTERM", "SIGBREAK")

_asked = False
_held = False
_outcome = NOTHING_SAVED


def saving_signals() -> list[signal.Signals]:
    """Return the signals of ``SAVING`` that this system has."""
    return [getattr(signal, name) for name in SAVING if hasattr(signal, name)]


def saved(step: int, run: object) -> None:
    """Note what there is to go on with, for the line that an interruption ends with."""
    global _outcome
    _outcome = f"interrupted; saved up to step {step}; go on with: gen resume {run}"


def note(what: str) -> None:
    """Note what was written so far, for the same line."""
    global _outcome
    _outcome = f"interrupted; {what}"


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Let a Ctrl-C wait for the end of the block, so that no file is cut short; a second one ends the process at once.

    Raises:
        KeyboardInterrupt: at the end, where it was pressed.
    """
    global _held
    _held = True
    try:
        yield
    finally:
        _held = False
    if _asked:
        raise KeyboardInterrupt


def remember_press() -> None:
    """Count a Ctrl-C that another handler caught and ends the process with."""
    global _asked
    _asked = True


def outcome() -> str:
    """What an interrupted command tells."""
    return _outcome


def asked() -> bool:
    """Whether Ctrl-C was pressed since ``watched`` began, also where the exception got lost."""
    return _asked


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Remember Ctrl-C inside the block; a second one ends the process at once."""
    global _asked, _outcome

    def remember(number: int, frame: Any) -> None:
        global _asked
        if _asked:
            os._exit(INTERRUPTED)
        _asked = True
        if not _held:
            raise KeyboardInterrupt

    _asked, _outcome = False, NOTHING_SAVED
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
