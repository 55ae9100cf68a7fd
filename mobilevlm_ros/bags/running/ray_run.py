# SPDX-License-Identifier: Apache-2.0
"""Runs jobs on a Ray cluster: one Ray Data pipeline over all recordings.

Tasks read recordings from storage that all machines share and select frames; actors with a model each answer
batches of them; what they say comes back to this process, which keeps it in the journals. Retries, actors
that die and the pressure on the object store are Ray's business.
"""

from __future__ import annotations

import importlib
import json
import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from tqdm import tqdm

from mobilevlm_ros.bags.job.entries import Entry
from mobilevlm_ros.bags.job.job import Job, Maker
from mobilevlm_ros.bags.job.journal import Journal
from mobilevlm_ros.bags.output.files import check_outputs, is_made_by
from mobilevlm_ros.bags.reading.bag import Bag
from mobilevlm_ros.bags.running.answering import Answerer
from mobilevlm_ros.bags.running.run import finish, forget
from mobilevlm_ros.bags.running.summary import Summary
from mobilevlm_ros.bags.selection.frames import SelectedFrame, Tally, select
from mobilevlm_ros.errors import EngineError, MobileVLMError, OptionError
from mobilevlm_ros.inference.types import Frame

BATCH = 4
"""Frames that an actor gets at once: what is lost, and done again, when it dies."""

BLOCK_BYTES = 8 << 20
"""Of a block in the object store. A raw 640x480 frame takes 0.9 MB."""

STORE_BYTES = 512 << 20
"""Of all blocks of a run in the object store at a time, and of the store that `local` makes."""

_READER_CPUS = 0.25
"""Of a reading task: decoding takes little beside the model."""

MOST_READERS = 8
"""Recordings that are read at once."""

LOCAL = "local"


@dataclass(frozen=True)
class Cluster:
    """Where and how wide.

    Attributes:
        address: 'local' (started here, and ended afterwards), 'auto', or that of a cluster.
        workers: most actors at work.
        gpus: of each actor.
    """

    address: str
    workers: int = 2
    gpus: float = 0.0

    def check(self) -> Cluster:
        """Itself. Raises OptionError."""
        if not 1 <= self.workers <= 4096:
            raise OptionError(f"--workers is {self.workers}: give 1 or more")
        if not 0 <= self.gpus <= 64:
            raise OptionError(f"--worker-gpus is {self.gpus:g}: give 0 or more")
        return self


@dataclass
class _Open:
    """A job under way."""

    job: Job
    output: Path
    fingerprint: dict[str, Any]
    journal: Journal
    summary: Summary


def run_on_ray(
    targets: dict[Path, Path],
    make: Maker,
    cluster: Cluster,
    *,
    overwrite: bool = False,
    quiet: bool = False,
) -> list[Summary]:
    """Does the jobs of several recordings; the files are those of `run`, byte for byte.

    Args:
        targets: output of each recording. Recordings must lie where every machine finds them.
        make, overwrite, quiet: as for `run`.

    Raises:
        As `run`; OptionError where Ray is not installed or the cluster is not there.
    """
    cluster.check()
    summaries: list[Summary] = []
    with ExitStack() as stack:
        work: list[_Open] = []
        for path, output in targets.items():
            try:
                opened = _open(path, output, make, overwrite, stack)
            except OptionError:
                raise
            except MobileVLMError as error:
                if len(targets) == 1:
                    raise
                opened = Summary(str(path), str(output), "", error=str(error))
            summaries.append(opened.summary if isinstance(opened, _Open) else opened)
            if isinstance(opened, _Open):
                work.append(opened)
        if work:
            with _Connection(cluster):
                _answer(work, cluster, quiet)
            for one in work:
                summary = one.summary
                summary.frames = len(one.journal)
                finish(one.job, one.output, one.journal, summary, one.fingerprint, overwrite)
    return summaries


def _open(path: Path, output: Path, make: Maker, overwrite: bool, stack: ExitStack) -> _Open | Summary:
    with Bag(path) as bag:
        job = make(bag)
    summary = Summary(job.bag, str(output), job.kind)
    summary.cameras = {camera.name: camera.topic for camera in job.selection.cameras}
    fingerprint = job.fingerprint()
    if not overwrite and is_made_by(output, fingerprint):
        summary.already_done = True
        forget(output, fingerprint)
        return summary
    check_outputs(output, job, overwrite)
    journal = stack.enter_context(Journal(output, fingerprint, anew=overwrite))
    summary.resumed = journal.resumed
    return _Open(job, output, fingerprint, journal, summary)


class _Connection:
    """To a cluster, or to one that is started for this run. A context manager."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __enter__(self) -> None:
        try:
            ray = _ray()
        except ImportError as error:
            raise OptionError(f"--ray needs Ray ({error}); pip install 'mobilevlm_ros[fleet]'") from error
        self._ours = not ray.is_initialized()
        if not self._ours:
            return
        where: dict[str, Any] = {"address": self._cluster.address}
        if self._cluster.address == LOCAL:
            where = {
                "address": LOCAL,
                "num_cpus": self._cluster.workers + 1,
                "object_store_memory": STORE_BYTES,
                "include_dashboard": False,
            }
        try:
            ray.init(logging_level="error", log_to_driver=False, **where)
        except Exception as error:  # of all kinds, a bare Exception where starting takes too long
            said = " ".join(str(error).split())
            raise OptionError(
                f"--ray {self._cluster.address}: no cluster answers there ({said[:300]}): start one with "
                "`ray start --head`, or give `local`"
            ) from error

    def __exit__(self, *_: object) -> None:
        if self._ours:
            _ray().shutdown()


def _ray() -> Any:
    """The library; some releases of it have no annotations, and no two the same."""
    importlib.import_module("ray.data")
    return importlib.import_module("ray")


def _answer(work: Sequence[_Open], cluster: Cluster, quiet: bool) -> None:
    ray = _ray()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.target_max_block_size = BLOCK_BYTES
    context.print_on_execution_start = False
    context.execution_options.resource_limits = ray.data.ExecutionResources.for_limits(
        object_store_memory=STORE_BYTES
    )
    start = monotonic()
    jobs = [replace(one.job, bag=str(Path(one.job.bag).absolute())) for one in work]
    done = [one.journal.numbers() for one in work]
    threads = max(1, jobs[0].model.threads)
    dataset = (
        ray.data.from_items([{"bag": number} for number in range(len(work))], override_num_blocks=len(work))
        .flat_map(
            _read,
            fn_args=(jobs, done),
            compute=ray.data.TaskPoolStrategy(size=min(MOST_READERS, len(work))),
            num_cpus=_READER_CPUS,
        )
        .map_batches(
            _Worker,
            fn_constructor_args=(jobs,),
            batch_size=BATCH,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=cluster.workers),
            num_cpus=threads,
            num_gpus=cluster.gpus or None,
        )
    )
    with tqdm(desc="frames", unit="frame", disable=True if quiet else None) as bar:
        try:
            for row in dataset.iter_rows():
                one = work[int(row["bag"])]
                _take(one, str(row["kind"]), str(row["text"]))
                bar.update(row["kind"] == "entry")
        except (ray.exceptions.RayError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise EngineError(
                f"Ray gave the run up ({said[:400]}): give the same command again, it goes on after "
                f"{sum(len(one.journal) for one in work)} frames"
            ) from error
    for one in work:
        one.summary.seconds = monotonic() - start


def _take(one: _Open, kind: str, text: str) -> None:
    if kind == "entry":
        one.journal.add(Entry.from_line(text))
    elif kind == "tally":
        told = json.loads(text)
        one.summary.damage = told.pop("damage")
        one.summary.tally = Tally(**told)
    else:
        raise EngineError(f"{text}: give the same command again, it goes on after {len(one.journal)} frames")


def _read(row: dict[str, Any], jobs: Sequence[Job], done: Sequence[list[int]]) -> Iterator[dict[str, Any]]:
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


class _Worker:
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
