# SPDX-License-Identifier: Apache-2.0
"""Runs jobs on a Ray cluster: one Ray Data pipeline over all recordings.

Tasks and actors (ray_work.py) send what they say back to this process, which keeps it in the journals.
Retries, actors that die and the pressure on the object store are Ray's business.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from tqdm import tqdm

from mobilevlm_ros.bags.job.entries import Entry
from mobilevlm_ros.bags.job.job import Job, Maker
from mobilevlm_ros.bags.job.journal import Journal
from mobilevlm_ros.bags.output.files import check_outputs, is_made_by
from mobilevlm_ros.bags.reading.bag import Bag
from mobilevlm_ros.bags.running.ray_work import Worker, read
from mobilevlm_ros.bags.running.run import finish, forget
from mobilevlm_ros.bags.running.summary import Summary
from mobilevlm_ros.bags.selection.frames import Tally
from mobilevlm_ros.errors import EngineError, MobileVLMError, OptionError

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
            read,
            fn_args=(jobs, done),
            compute=ray.data.TaskPoolStrategy(size=min(MOST_READERS, len(work))),
            num_cpus=_READER_CPUS,
        )
        .map_batches(
            Worker,
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
