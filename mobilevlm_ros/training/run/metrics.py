# SPDX-License-Identifier: Apache-2.0
"""What a run shows while it goes on, and keeps: metrics.jsonl, TensorBoard events, loss.png."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from mobilevlm_ros.errors import RecipeError
from mobilevlm_ros.files.atomic import write_file
from mobilevlm_ros.training.trainer import Step

METRICS = "metrics.jsonl"


def check_tensorboard() -> None:
    """Raises RecipeError where TensorBoard's events cannot be written."""
    if importlib.util.find_spec("tensorboard") is None:
        raise RecipeError("run.tensorboard needs tensorboard: pip install 'mobilevlm_ros[tensorboard]'")


class Metrics:
    """One line per step in metrics.jsonl, and the progress bar. Lines after `first` of an earlier try are
    dropped."""

    def __init__(self, run: Path, first: int, steps: int, *, bar: bool, tensorboard: bool) -> None:
        self.run = run
        path = run / METRICS
        kept = [line for line in read_metrics(run) if line["step"] < first]
        write_file(path, "".join(json.dumps(line) + "\n" for line in kept).encode(), overwrite=True)
        self._file = path.open("a")
        self._bar = tqdm(
            total=steps, initial=first, desc="training", unit="step", disable=not bar, file=sys.stderr
        )
        self._events: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # takes seconds

            self._events = SummaryWriter(str(run / "tensorboard"), purge_step=first)
        self._last = time.perf_counter()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._file.close()
        if self._events is not None:
            self._events.close()

    def add(self, step: int, done: Step, taught: int) -> None:
        """Notes a step; `taught`: tokens of all processes that the loss was a mean of."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        line = {
            "step": step,
            "loss": done.loss,
            "rate": max(done.rates),
            "gradient_norm": done.gradient_norm,
            "taught_tokens": taught,
            "seconds": round(seconds, 4),
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._bar.set_postfix_str(
            f"loss {done.loss:.3f}, rate {max(done.rates):.1e}, {taught / seconds:.0f} tokens/s",
            refresh=False,
        )
        self._bar.update()
        if self._events is not None:
            for name in ("loss", "rate", "gradient_norm"):
                self._events.add_scalar(name, line[name], step)
            self._events.add_scalar("tokens_per_second", taught / seconds, step)
            self._events.flush()  # what is looked at while the run goes on, and after it was killed

    def say(self, text: str) -> None:
        """A line of text that the bar does not run over."""
        self._bar.write(text, file=sys.stderr)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; one that a crash cut short is left out."""
    path = run / METRICS
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def plot_loss(run: Path) -> Path | None:
    """Draws loss.png of a run's metrics: every step, and their moving mean."""
    losses = np.array([line["loss"] for line in read_metrics(run)], np.float64)
    if len(losses) < 2:
        return None
    width, height, left, bottom = 900, 420, 70, 40
    image = np.full((height, width, 3), 255, np.uint8)
    top = float(losses.max()) * 1.05 or 1.0

    def place(values: np.ndarray) -> np.ndarray:
        x = left + np.linspace(0, 1, len(values)) * (width - left - 20)
        y = height - bottom - values / top * (height - bottom - 20)
        return np.stack([x, y], 1).round().astype(np.int32)

    for share in np.linspace(0, 1, 6):
        y = int(height - bottom - share * (height - bottom - 20))
        cv2.line(image, (left, y), (width - 20, y), (225, 225, 225), 1)
        _write(image, f"{share * top:.2f}", (8, y + 4))
    window = max(1, len(losses) // 50)
    mean = np.convolve(np.pad(losses, (window - 1, 0), mode="edge"), np.ones(window) / window, "valid")
    cv2.polylines(image, [place(losses)], False, (230, 200, 160), 1, cv2.LINE_AA)
    cv2.polylines(image, [place(mean)], False, (160, 80, 20), 2, cv2.LINE_AA)
    _write(image, f"loss over {len(losses)} steps; thick: mean of {window}", (left, height - 12))
    path = run / "loss.png"
    write_file(path, cv2.imencode(".png", image)[1].tobytes(), overwrite=True)
    return path


def _write(image: np.ndarray, text: str, at: tuple[int, int]) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
