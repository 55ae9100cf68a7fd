# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import multiprocessing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.engine.cuda.device import Gpu
from mobilevlm_ros.engine.tensorrt.plans import FOLDER, Key, PlanCache

ORIN = Gpu("Orin", (8, 7))
KEY = Key.of("ab12", "10.3.0", ORIN, "typed", {"x": 1})
PLAN = bytes(range(256)) * 10


def test_a_plan_comes_back_as_it_was(tmp_path):
    cache = PlanCache(tmp_path / "plans")
    assert cache.load("decoder.trt.onnx", KEY) is None
    assert cache.get("decoder.trt.onnx", KEY, lambda: PLAN) == PLAN
    (path,) = (tmp_path / "plans").iterdir()  # nothing half-written beside it
    assert path.name.startswith("decoder.trt.trt10.3.0.sm_87.") and path.suffix == ".plan"

    def never() -> bytes:
        raise AssertionError("built twice")

    assert cache.get("decoder.trt.onnx", KEY, never) == PLAN


@pytest.mark.parametrize(
    "change",
    [
        {"onnx_sha256": "other"},
        {"tensorrt": "10.7.0"},
        {"gpu": "Orin Nano"},
        {"capability": "sm_89"},
        {"precision": "x"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_plan_made_for_something_else_is_not_taken(tmp_path, change, caplog):
    cache = PlanCache(tmp_path)
    cache.store("v.onnx", KEY, PLAN)
    other = dataclasses.replace(KEY, **change)
    assert cache.path("v.onnx", other) != cache.path("v.onnx", KEY)
    assert cache.load("v.onnx", other) is None
    cache.path("v.onnx", KEY).rename(cache.path("v.onnx", other))  # as if copied under another name
    assert cache.load("v.onnx", other) is None
    assert "was made for something else (Orin, TensorRT 10.3.0): building it again" in caplog.text


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A cache that holds the plan, and the file's content."""
    cache = PlanCache(tmp_path_factory.mktemp("plans"))
    cache.store("v.onnx", KEY, PLAN)
    return cache, cache.path("v.onnx", KEY).read_bytes()


def test_any_damage_is_found(stored):
    cache, content = stored

    @given(st.data())
    def damaged(data):
        position = data.draw(st.integers(0, len(content) - 1))
        damage = data.draw(
            st.sampled_from([content[:position], content[:position] + b"\0" + content[position + 2 :]])
        )
        cache.path("v.onnx", KEY).write_bytes(damage)
        assert cache.load("v.onnx", KEY) == (PLAN if damage == content else None)
        assert cache.get("v.onnx", KEY, lambda: PLAN) == PLAN

    damaged()


def test_foreign_bytes_are_no_plan(stored):
    cache, _ = stored

    @given(st.binary(max_size=200))
    def foreign(content):
        for prefix in (b"", b"mobilevlm_ros plan 1\n"):
            cache.path("v.onnx", KEY).write_bytes(prefix + content)
            assert cache.load("v.onnx", KEY) is None

    foreign()


def test_a_folder_that_cannot_be_written_costs_a_line_only(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = PlanCache(tmp_path / "file" / "plans")
    assert cache.get("v.onnx", KEY, lambda: PLAN) == PLAN
    assert "cannot be written" in caplog.text


def test_plans_lie_in_the_bundle_where_they_can(tmp_path, monkeypatch):
    assert PlanCache.beside(tmp_path).folder == tmp_path / FOLDER
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(PlanCache.beside(tmp_path / "absent").folder) == "/somewhere/mobilevlm_ros/plans"


def _share(folder, number, wrong):
    cache = PlanCache(folder)
    for name in [f"{index % 5}.onnx" for index in range(60)]:
        plan = cache.get(name, KEY, lambda name=name: PLAN + name.encode())
        if plan != PLAN + name.encode():
            wrong.put((number, name))


def test_two_nodes_may_share_a_cache(tmp_path):
    context = multiprocessing.get_context("fork")
    wrong = context.Queue()
    both = [context.Process(target=_share, args=(tmp_path / "plans", number, wrong)) for number in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0] and wrong.empty()
    assert sorted({path.suffix for path in (tmp_path / "plans").iterdir()}) == [
        ".plan"
    ]  # nothing half-written
    assert len(list((tmp_path / "plans").iterdir())) == 5
