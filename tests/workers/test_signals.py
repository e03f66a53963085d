"""What TERM does to a process that launches a sweep."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from blip2sweep.workers.signals import term_as_ctrl_c


def test_term_is_ctrl_c_inside_and_what_it_was_after() -> None:
    received: list[int] = []

    def callers(signum: int, _: object) -> None:
        received.append(signum)

    before = signal.signal(signal.SIGTERM, callers)
    try:
        with pytest.raises(KeyboardInterrupt), term_as_ctrl_c():
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]


def test_a_thread_changes_no_handler() -> None:
    handlers = [signal.getsignal(signal.SIGTERM)]

    def launch() -> None:
        with term_as_ctrl_c():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=launch)
    thread.start()
    thread.join()
    assert handlers[0] == handlers[1]
