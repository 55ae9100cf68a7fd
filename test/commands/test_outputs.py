# SPDX-License-Identifier: Apache-2.0
"""Every verb that writes: what a user has at the path stays, unless asked, and until the new is whole."""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.cli import main
from mobilevlm_ros.engine.bundle import Bundle
from mobilevlm_ros.errors import BundleError
from mobilevlm_ros.inference.choices.calibration import Calibration

PARITY = Path(__file__).parents[1] / "data" / "parity"
PICTURE = PARITY / "images" / "landscape.png"
TINY = ("--tokens", "2")


class Verb:
    """Its command for an output path, and the files that it then owns there ('' is the path itself)."""

    def __init__(self, command: Callable[[Path], list[object]], name: str, *owned: str) -> None:
        self.command, self.name, self.owned = command, name, owned or ("",)

    def run(self, path: Path, *options: str) -> int:
        return main([str(part) for part in (*self.command(path), *options)])


@pytest.fixture
def verbs(tiny_checkpoint: Path, nano: Path, tmp_path: Path) -> dict[str, Verb]:
    work = tmp_path / "train-work"
    work.mkdir()
    shutil.copy(nano / "tokenizer.model", work)
    recipe = ("steps=1", "scenes=2", "batch=1", "pairs=1", "foreign_pictures=1")
    tokenizer = PARITY / "ckpt" / "tiny-ldpnet" / "tokenizer.model"
    bundle = Path(shutil.copytree(nano, tmp_path / "own-bundle"))
    ldpnet = PARITY / "ckpt" / "tiny-ldpnet"
    trace = ("trace", ldpnet, PICTURE, "What?", *TINY, "-o")
    random = ("make-checkpoint", "--like", "tiny", "--random", "--tokenizer", tokenizer, "--quiet")
    train = ("train", "nano", "--no-compile", "--work", work, "--set", *recipe, "-o")
    return {
        "build": Verb(lambda p: ["build", tiny_checkpoint, "--quality", 0, "--quiet", "-o", p], "b"),
        "make-checkpoint": Verb(lambda p: [*random, p], "c"),
        "train": Verb(lambda p: [*train, p], "t"),
        "trace": Verb(lambda p: [*trace, p], "x.npz"),
        "bench": Verb(lambda p: ["bench", *TINY, "--repeats", 1, "--bundle", bundle, "--plot", p], "x.png"),
        "calibrate": Verb(
            lambda p: ["calibrate", "nano", "--count", 40, "--bundle", bundle, "--plot", p], "x.png"
        ),
        "export-gguf": Verb(
            lambda p: ["export-gguf", ldpnet, "--quiet", "-o", p.parent], "tiny-ldpnet-f16.gguf"
        ),
    }


DIRECTORIES = ("build", "make-checkpoint", "train")
FILES = ("trace", "bench", "calibrate", "export-gguf")


def snapshot(root: Path) -> dict[str, object]:
    """Everything below: contents, where links lead, permissions."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content: object = None
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        found[str(path.relative_to(root))] = (status.st_mode, content)
    return found


def a_file(path: Path) -> None:
    path.write_text("mine")


def a_directory(path: Path) -> None:
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "thesis.tex").write_text("mine")
    (path / "config.json").write_text('{"model_type": "mobilevlm"}')
    (path / "bundle.json").write_text('{"schema_version": 1, "files": {}}')


def a_link_to_a_file(path: Path) -> None:
    path.with_name("behind").write_text("mine")
    path.symlink_to("behind")


def a_link_to_a_directory(path: Path) -> None:
    a_directory(path.with_name("behind"))
    path.symlink_to("behind")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


THERE = (a_file, a_directory, a_link_to_a_file, a_link_to_a_directory, a_pipe)


@pytest.mark.parametrize("verb", [*DIRECTORIES, *FILES])
def test_what_is_there_stays_unless_asked_and_others_files_even_then(verbs, verb, tmp_path, capsys):
    for place in THERE:
        room = tmp_path / place.__name__
        room.mkdir()
        path = room / verbs[verb].name
        place(path)
        before = snapshot(room)
        options = [[]]
        if verb in DIRECTORIES or place not in (a_file, a_link_to_a_file):
            options.append(["--overwrite"])  # asked to replace what cannot be its own
        for option in options:
            assert verbs[verb].run(path, *option) == 1, (place.__name__, option)
            said = capsys.readouterr().err.splitlines()
            assert said[-1].startswith("mobilevlm: error: ")
            assert str(path) in said[-1]
            assert snapshot(room) == before


@pytest.mark.parametrize("verb", [*DIRECTORIES, *FILES])
def test_a_full_disk_loses_nothing_and_then_it_is_replaced(verbs, verb, tmp_path, capsys):
    room = tmp_path / "room"
    room.mkdir()
    path = room / verbs[verb].name
    assert verbs[verb].run(path) == 0
    if verb == "train":
        (tmp_path / "train-work" / "state.pt").unlink()
    before = snapshot(room)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, old[1]))  # writing past it fails as on a full disk
    try:
        assert verbs[verb].run(path, "--overwrite") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "error: " in capsys.readouterr().err
    assert snapshot(room) == before
    link = room / f"link{path.suffix}"
    if verb != "export-gguf":  # its files have names of its own
        link.symlink_to(path.name)
    before = set(snapshot(room))
    assert verbs[verb].run(link if link.is_symlink() else path, "--overwrite") == 0, capsys.readouterr().err
    assert set(snapshot(room)) == before
    assert link.is_symlink() or verb == "export-gguf"


@pytest.mark.parametrize("verb", ["trace", "bench", "build"])
def test_places_that_cannot_be_written_get_one_line(verbs, verb, capsys):
    for place in ("/proc/nothing", "/sys/kernel/nothing", "/dev/null/x"):
        assert verbs[verb].run(Path(place, verbs[verb].name)) == 1
        error = capsys.readouterr().err.splitlines()
        assert error[-1].startswith("mobilevlm: error: cannot write ") and "Traceback" not in error


def test_an_own_trace_is_replaced_and_another_archive_is_not(verbs, tmp_path):
    path = tmp_path / "x.npz"
    assert verbs["trace"].run(path) == 0
    assert verbs["trace"].run(path) == 0
    np.savez(path, measured=np.zeros(3))
    before = path.read_bytes()
    assert verbs["trace"].run(path) == 1
    assert path.read_bytes() == before


def test_the_shipped_bundle_is_measured_and_never_changed(nano, capsys):
    before = snapshot(nano)
    assert main(["calibrate", "nano", "--count", "40", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] is False
    assert main(["calibrate", "--remove"]) == 1
    assert "name it with --bundle" in capsys.readouterr().err
    assert snapshot(nano) == before


def test_a_calibration_of_others_is_left_alone(nano, tmp_path):
    bundle = Path(shutil.copytree(nano, tmp_path / "bundle"))
    (bundle / "calibration.json").write_text('{"camera": "left"}')
    before = snapshot(bundle)
    with pytest.raises(BundleError, match=r"calibration\.json already exists"):
        Calibration(2.0).save(Bundle.open(bundle))
    assert main(["calibrate", "--remove", "--bundle", str(bundle)]) == 0
    assert snapshot(bundle) == before


def test_a_calibration_whose_writing_was_cut_is_written_again(nano, tmp_path):
    bundle = Path(shutil.copytree(nano, tmp_path / "bundle"))
    (bundle / "calibration.json").write_text(Calibration(1.5).to_json())  # and not in the manifest yet
    Calibration(2.0).save(Bundle.open(bundle))
    assert Calibration.load(Bundle.open(bundle)) == Calibration(2.0)
