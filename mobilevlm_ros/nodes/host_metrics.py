# SPDX-License-Identifier: Apache-2.0
"""What Linux tells about this process and this machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

_PLAUSIBLE = (-60.0, 200.0)  # degrees Celsius; sensors that are not connected report less or more


def resident_memory(statm: Path = Path("/proc/self/statm")) -> int:
    """Bytes of memory that this process occupies; 0 where the system does not tell."""
    try:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def hottest(system: Path = Path("/sys/class")) -> float:
    """Degrees Celsius of the hottest sensor in Linux's thermal zones and hardware monitors; NaN: there is
    none.
    """
    found = [math.nan]
    for pattern in ("thermal/thermal_zone*/temp", "hwmon/hwmon*/temp*_input"):
        for file in system.glob(pattern):
            try:
                degrees = int(file.read_text()) / 1000.0  # both are in thousandths
            except (OSError, ValueError):  # a sensor that sleeps, or is not there
                continue
            if _PLAUSIBLE[0] <= degrees <= _PLAUSIBLE[1]:
                found.append(degrees)
    return max(found, key=lambda degrees: -math.inf if math.isnan(degrees) else degrees)
