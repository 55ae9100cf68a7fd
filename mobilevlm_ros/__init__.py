# SPDX-License-Identifier: Apache-2.0
"""Ask a robot's cameras questions in plain language, on the machine it carries.

from mobilevlm_ros import MobileVLM

print(MobileVLM().ask("photo.jpg", "What is on the left?"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mobilevlm_ros.version import __version__

if TYPE_CHECKING:
    from mobilevlm_ros.api.model import MobileVLM

__all__ = ["MobileVLM", "__version__"]


def __getattr__(name: str) -> Any:
    """Imports the front door when it is used: `import mobilevlm_ros` alone loads nothing."""
    if name == "MobileVLM":
        from mobilevlm_ros.api.model import MobileVLM

        return MobileVLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
