# SPDX-License-Identifier: Apache-2.0
"""What the node can do right now: its status, its model and its cameras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mobilevlm_msgs.msg import Status

from mobilevlm_ros.nodes.cameras.camera import Camera
from mobilevlm_ros.nodes.model_manager import ModelManager
from mobilevlm_ros.ros.status import Refused


@dataclass
class NodeState:
    """What the node can do right now; the node changes it, its servers read it.

    Attributes:
        status: OK while the node is active, else why it is not.
        model: None before configure and after cleanup.
        cameras: by name, the default one first; empty unless active.
    """

    status: Status
    model: ModelManager | None = None
    cameras: Mapping[str, Camera] = field(default_factory=dict)

    def require(self) -> ModelManager:
        """The model; raises Refused with the reason when the node is not active."""
        if self.status.code != Status.OK or self.model is None:
            raise Refused(self.status.code, self.status.message)
        return self.model
