# SPDX-License-Identifier: Apache-2.0
"""Ends a process that hangs, with the stacks of its threads on stderr, so that its supervisor (launch with
`respawn`, systemd, Docker) starts it again.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import NoReturn

from rclpy.executors import Executor

HUNG = 70
"""Exit code: EX_SOFTWARE of sysexits.h."""

LONGEST_PERIOD = 5.0
"""Seconds between two looks, at most; else a quarter of the limit."""

LAST_RESORT = 5.0
"""Times the limit after which faulthandler ends a process whose Python can run no thread at all (native code
that holds the interpreter's lock); the exit code is 1 then. Unlike our thread, it cannot tell that from a
process that was stopped or a container that was frozen for so long, hence the patience.
"""


class Watchdog:
    """A thread that sends the executor a task now and then, and sees whether it is run.

    Args:
        executor: that is watched.
        limit: seconds without progress that are taken for a hang; asked at each look; 0 = no watching.
        stuck: for how many seconds other work, which must make progress too, has made none.
        exempt: whether no progress is fine now, as while a bundle is loaded.
    """

    def __init__(
        self,
        executor: Executor,
        limit: Callable[[], float],
        stuck: Callable[[], float],
        exempt: Callable[[], bool],
    ) -> None:
        self._executor = executor
        self._limit, self._stuck, self._exempt = limit, stuck, exempt
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer: the process ends by itself."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        beat: threading.Event | None = None
        progress = monotonic()
        while True:
            limit = self._limit()
            period = min(LONGEST_PERIOD, limit / 4) if limit > 0 else LONGEST_PERIOD
            if limit > 0:
                faulthandler.dump_traceback_later(LAST_RESORT * limit + period, exit=True)
            else:
                faulthandler.cancel_dump_traceback_later()
            before = monotonic()
            if self._stopped.wait(period):
                faulthandler.cancel_dump_traceback_later()
                return
            now = monotonic()
            # This thread did not run either: the machine was suspended, or the process was stopped.
            suspended = now - before > 2 * period + 1.0
            if limit <= 0 or self._exempt() or suspended or beat is None or beat.is_set():
                progress = now
                beat = threading.Event()
                self._executor.create_task(beat.set)
            elif now - progress > limit:
                _end(f"the executor has run nothing for {now - progress:.0f} s")
            if limit > 0 and not suspended and self._stuck() > limit:
                _end(f"the model has made no progress for {self._stuck():.0f} s")


def _end(what: str) -> NoReturn:
    """Say what hangs and where, and end the process without waiting for any thread."""
    print(
        f"this node hangs: {what} (parameter hang_timeout). It ends now, so that it can be started again; "
        "these are its threads:",
        file=sys.stderr,
        flush=True,
    )
    faulthandler.dump_traceback(all_threads=True)
    sys.stdout.flush()
    os._exit(HUNG)
