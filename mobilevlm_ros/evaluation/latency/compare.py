# SPDX-License-Identifier: Apache-2.0
"""Ours beside llama.cpp, as a user feels it: from a picture to the last token, in turn, on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from mobilevlm_ros.errors import EngineError, OptionError
from mobilevlm_ros.evaluation.latency.measure import FRAME, machine

QUESTIONS = ("What is in the image?", "Is there a person?")
"""Asked about each picture, one after the other: the second finds the picture read already."""

OURS, LLAMA_CPP = "ours", "llama.cpp"


@dataclass(frozen=True)
class Felt:
    """What a user of one engine waits for, in seconds: medians of all rounds.

    Attributes:
        load: until the first question can be asked.
        new_picture: from a picture to the last token of the first question about it.
        same_picture: of the second question about it.
        peak_bytes: greatest resident memory of the process.
    """

    load: float
    new_picture: float
    same_picture: float
    peak_bytes: int


@dataclass(frozen=True)
class Comparison:
    """Both engines on one machine."""

    machine: str
    threads: int
    tokens: int
    rounds: int
    busy: int
    models: dict[str, str]
    felt: dict[str, Felt]
    versions: dict[str, str]

    def ratios(self) -> dict[str, float]:
        """Ours over llama.cpp's, for each figure; below 1 is faster or smaller."""
        a, b = asdict(self.felt[OURS]), asdict(self.felt[LLAMA_CPP])
        return {name: a[name] / b[name] for name in a if b[name]}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "ratios": self.ratios()}

    def table(self) -> str:
        """Markdown, and what it is of."""
        lines = [
            f"{self.machine}; {self.threads or 'default'} threads, {self.rounds} rounds in turn, "
            f"{self.tokens} tokens" + (f", beside {self.busy} busy processes" if self.busy else ""),
            *(f"{name}: {self.models[name]} ({self.versions[name]})" for name in self.felt),
            "",
            "| engine | load s | new picture s | same picture s | peak MiB |",
            "|---|---|---|---|---|",
        ]
        for name, f in self.felt.items():
            lines.append(
                f"| {name} | {f.load:.2f} | {f.new_picture:.3f} | {f.same_picture:.3f} "
                f"| {f.peak_bytes / 2**20:.0f} |"
            )
        r = self.ratios()
        cells = (f"{r[name]:.2f}" if name in r else "-" for name in Felt.__dataclass_fields__)
        lines.append(f"| ours / llama.cpp | {' | '.join(cells)} |")
        return "\n".join(lines)


def find_gguf(directory: Path) -> tuple[Path, Path]:
    """The language model's and the image encoder's file that `mobilevlm export-gguf` wrote.

    Raises OptionError where there is not one of each.
    """
    files = sorted(directory.glob("*.gguf")) if directory.is_dir() else []
    encoders = [file for file in files if "mmproj" in file.name]
    models = [file for file in files if "mmproj" not in file.name]
    if len(encoders) != 1 or len(models) != 1:
        found = ", ".join(file.name for file in files) or "nothing"
        raise OptionError(
            f"{directory} must hold one language model and one mmproj in GGUF, and holds {found}: make them "
            "with mobilevlm export-gguf CHECKPOINT --type q4_0 -o DIR"
        )
    return models[0], encoders[0]


def compare(
    bundle: Path,
    gguf: Path,
    *,
    threads: int = 0,
    tokens: int = 16,
    rounds: int = 5,
    busy: int = 0,
    progress: Callable[[int, int, str], object] = lambda done, total, what: None,
) -> Comparison:
    """Asks both engines QUESTIONS about a new picture in each of `rounds`, after one that does not count.

    Each engine runs in a process of its own, and they take turns. `busy` processes compute meanwhile, as
    others do on a robot. Raises OptionError for files or numbers that will not do, EngineError for an engine
    that fails.
    """
    if tokens < 1 or rounds < 1 or busy < 0:
        raise OptionError(
            f"tokens ({tokens}) and rounds ({rounds}) must be 1 or more, busy ({busy}) 0 or more"
        )
    model, mmproj = find_gguf(gguf)
    try:
        llama_version = version("xllamacpp")
    except PackageNotFoundError:
        raise OptionError(
            "llama.cpp is compared through its wheel, which is not installed: pip install xllamacpp"
        ) from None
    commands = {
        OURS: (OURS, str(bundle), str(threads)),
        LLAMA_CPP: (LLAMA_CPP, str(model), str(mmproj), str(threads)),
    }
    random = np.random.default_rng(0)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mobilevlm-")))
        engines = {name: stack.enter_context(_Engine(name, words)) for name, words in commands.items()}
        stack.enter_context(busy_processes(busy))
        for number in range(rounds + 1):
            picture = folder / f"{number}.png"
            rough = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            cv2.imwrite(str(picture), cv2.resize(rough, FRAME[1::-1], interpolation=cv2.INTER_CUBIC))
            for name, engine in engines.items():
                progress(number, rounds + 1, name)
                first, second = (engine.ask(picture, question, tokens) for question in QUESTIONS)
                times[name].append((first, second))
        peaks = {name: engine.finish() for name, engine in engines.items()}
        loads = {name: engine.load for name, engine in engines.items()}
    felt = {
        name: Felt(
            loads[name],
            median(first for first, _ in found[1:]),
            median(second for _, second in found[1:]),
            peaks[name],
        )
        for name, found in times.items()
    }
    return Comparison(
        machine(), threads, tokens, rounds, busy,
        {OURS: bundle.name, LLAMA_CPP: f"{model.name}, {mmproj.name}"}, felt,
        {OURS: f"onnxruntime {version('onnxruntime')}", LLAMA_CPP: f"xllamacpp {llama_version}"},
    )  # fmt: skip


class _Engine:
    """A contender's process."""

    def __init__(self, name: str, words: tuple[str, ...]) -> None:
        self._name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit
        command = [sys.executable, "-m", "mobilevlm_ros.evaluation.latency.contender", *words]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self.load = 0.0

    def __enter__(self) -> _Engine:
        try:
            self.load = float(self._told()["load"])
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def ask(self, picture: Path, question: str, tokens: int) -> float:
        """Seconds of an answer."""
        assert self._process.stdin is not None
        request = {"picture": str(picture), "question": question, "tokens": tokens}
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended: what it said last tells why
        return float(self._told()["seconds"])

    def finish(self) -> int:
        """Its peak memory, bytes; it ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return int(self._told()["peak"])

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:  # llama.cpp may write lines of its own
            if line.startswith("{"):
                told: dict[str, Any] = json.loads(line)
                return told
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        raise EngineError(f"{self._name} ended: {said[-1] if said else 'without a word'}")

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()


@contextmanager
def busy_processes(processes: int) -> Iterator[None]:
    """So many processes that compute without end."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
