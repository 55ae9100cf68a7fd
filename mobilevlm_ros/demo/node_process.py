# SPDX-License-Identifier: Apache-2.0
"""Nodes started as processes of their own, which end when we do."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from mobilevlm_ros.errors import MobileVLMError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ChildError(MobileVLMError):
    """A process that we need has ended."""


class Child:
    """A node of this package as a process; its output goes to a file.

    Args:
        name: for messages.
        module: run as `python -m module`.
        parameters: ROS parameters.
        environment: of the process.
        remappings: 'from:=to'.
    """

    def __init__(
        self,
        name: str,
        module: str,
        parameters: Mapping[str, object],
        environment: Mapping[str, str],
        remappings: Sequence[str] = (),
    ) -> None:
        self.name = name
        command = [sys.executable, "-m", module, "--ros-args"]
        for key, value in parameters.items():
            command += ["-p", f"{key}:={value}"]
        for remapping in remappings:
            command += ["-r", remapping]
        self._log = tempfile.NamedTemporaryFile(prefix=f"{name}-", suffix=".log")  # noqa: SIM115  closed in stop
        self.process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def log(self, lines: int = 1000) -> str:
        """The last lines of its output so far."""
        text = Path(self._log.name).read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def check(self) -> None:
        """Raises ChildError with the end of its output when the process has ended."""
        code = self.process.poll()
        if code is not None:
            raise ChildError(f"{self.name} ended with code {code}; its last lines:\n{self.log(15)}")

    def stop(self, timeout: float = 5.0) -> int:
        """End the process (SIGTERM, then SIGKILL after `timeout` seconds); its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()
        return int(self.process.returncode)


def _die_with_parent() -> None:
    """Even when we are killed outright, no node is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
