# SPDX-License-Identifier: Apache-2.0
"""Notices that the bundle on the disk is no longer the one that answers."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mobilevlm_ros.engine.bundle import Bundle

_LISTED = 3  # files named in a sentence


class BundleWatch:
    """Compares the files of a bundle with what was verified, on a thread: a disk over the network may hang.

    Args:
        warn: called with a sentence, on the executor's thread, when files have changed.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._thread: threading.Thread | None = None
        self._found: tuple[Bundle, str] | None = None  # what the last look said, and of which bundle
        self._told = ""

    def look(self, bundle: Bundle) -> str:
        """What has changed, as the last look found it; empty for nothing. Begins the next look."""
        found = self._found
        trouble = found[1] if found is not None and found[0] is bundle else ""
        if trouble and trouble != self._told:
            self._warn(trouble)
        self._told = trouble
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._compare, args=(bundle,), name="bundle", daemon=True)
            self._thread.start()
        return trouble

    def _compare(self, bundle: Bundle) -> None:
        self._found = bundle, _described(bundle)


def _described(bundle: Bundle) -> str:
    changed = bundle.changed_files()
    if not changed:
        return ""
    more = f" and {len(changed) - _LISTED} more" if len(changed) > _LISTED else ""
    return (
        f"{bundle.path} has changed since it was loaded ({', '.join(changed[:_LISTED])}{more}); the "
        "node answers with the copy that it loaded: call ~/reload_bundle to use what is there now"
    )
