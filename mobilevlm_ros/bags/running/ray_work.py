# SPDX-License-Identifier: Apache-2.0
"""What runs on the machines of a Ray cluster: tasks that read recordings from storage that all machines share
and select frames, actors with a model each that answer batches of them, and the rows between the two.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from mobilevlm_ros.bags.job.job import Job
from mobilevlm_ros.bags.reading.bag import Bag
from mobilevlm_ros.bags.running.answering import Answerer
from mobilevlm_ros.bags.selection.frames import SelectedFrame, Tally, select
from mobilevlm_ros.errors import MobileVLMError
from mobilevlm_ros.inference.types import Frame


def read(row: dict[str, Any], jobs: Sequence[Job], done: Sequence[list[int]]) -> Iterator[dict[str, Any]]:
    """Rows of the frames of a recording that nobody has answered yet, and what became of the rest."""
    place = int(row["bag"])
    job, answered, tally = jobs[place], frozenset(done[place]), Tally()
    try:
        with Bag(job.bag) as bag:
            for selected in select(bag, job.selection, tally):
                if selected.number not in answered:
                    yield _to_row(place, "frame", "", selected)
            told = {**asdict(tally), "damage": list(dict.fromkeys(bag.damage))}
        yield _to_row(place, "tally", json.dumps(told))
    except MobileVLMError as error:
        yield _to_row(place, "error", str(error))


class Worker:
    """An actor with a model."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        model = jobs[0].model
        self._error = ""
        try:
            runtime = replace(model, threads=max(1, model.threads)).load()
        except MobileVLMError as error:
            self._error = f"on {socket.gethostname()}: {error}"
            return
        found = runtime.bundle.manifest.model_id
        if found != jobs[0].model_id:
            self._error = f"the bundle on {socket.gethostname()} is {found}, not {jobs[0].model_id}"
        self._answerers = [Answerer(job, runtime) for job in jobs]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        said = [
            self._one({name: column[i] for name, column in batch.items()}) for i in range(len(batch["bag"]))
        ]
        return {
            "bag": batch["bag"],
            "kind": np.array([kind for kind, _ in said], object),
            "text": np.array([text for _, text in said], object),
        }

    def _one(self, row: dict[str, Any]) -> tuple[str, str]:
        if row["kind"] != "frame":
            return str(row["kind"]), str(row["text"])
        if self._error:
            return "error", self._error
        try:
            return "entry", self._answerers[int(row["bag"])](_from_row(row)).to_line()
        except MobileVLMError as error:
            return "error", f"on {socket.gethostname()}: {error}"


def _to_row(place: int, kind: str, text: str, selected: SelectedFrame | None = None) -> dict[str, Any]:
    """A row of plain values, as the object store keeps them; the same columns in each."""
    image = np.zeros((0, 0, 3), np.uint8) if selected is None else selected.frame.image
    about = None
    if selected is not None:
        frame = selected.frame
        about = {
            **{name: getattr(selected, name) for name in ("number", "topic", "index", "bag_time_ns", "due")},
            **{name: getattr(frame, name) for name in ("stamp_ns", "frame_id", "camera", "run")},
        }
    return {
        "bag": place,
        "kind": kind,
        "text": text or json.dumps(about),
        "height": image.shape[0],
        "width": image.shape[1],
        "image": np.ascontiguousarray(image).tobytes(),
    }


def _from_row(row: dict[str, Any]) -> SelectedFrame:
    about = json.loads(str(row["text"]))
    shape = (int(row["height"]), int(row["width"]), 3)
    image = np.frombuffer(row["image"], np.uint8).reshape(shape)
    frame = Frame(image, about["stamp_ns"], about["frame_id"], about["camera"], about["run"])
    return SelectedFrame(
        about["number"], frame, about["topic"], about["index"], about["bag_time_ns"], tuple(about["due"])
    )
