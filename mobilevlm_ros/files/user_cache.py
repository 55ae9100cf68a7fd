# SPDX-License-Identifier: Apache-2.0
"""The directory for what can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """This package's part of the user's cache directory ($XDG_CACHE_HOME, else ~/.cache); not made yet.

    The XDG base directory specification asks to ignore a relative path there: it would lead into whatever
    directory a command is started in.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base if Path(base).is_absolute() else Path.home() / ".cache", "mobilevlm_ros")
