# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.files import kinds
from mobilevlm_ros.files.json_fields import read_json, write_json

VALUES: dict[str, Any] = {
    "text": "", "flag": True, "zero": 0, "below": -1, "number": 0.5, "huge": 10**30, "null": None,
    "list": [], "texts": ["a"], "counts": [0, 1], "flags": [True], "object": {}, "odds": {"a": 1, "b": 0.5},
    "names": {"a": "b"},
}  # fmt: skip

FITTING = {
    kinds.TEXT: {"text"},
    kinds.FLAG: {"flag"},
    kinds.WHOLE: {"zero", "below", "huge"},
    kinds.COUNT: {"zero", "huge"},
    kinds.NUMBER: {"zero", "below", "huge", "number"},
    kinds.LIST: {"list", "texts", "counts", "flags"},
    kinds.TEXTS: {"list", "texts"},
    kinds.COUNTS: {"list", "counts"},
    kinds.OBJECT: {"object", "odds", "names"},
    kinds.TEXT_OBJECT: {"object", "names"},
    kinds.NUMBER_OBJECT: {"object", "odds"},
}


@pytest.mark.parametrize("kind", FITTING, ids=lambda kind: kind.name)
@pytest.mark.parametrize("read", [json.loads, yaml.safe_load])
def test_each_kind_takes_what_it_says_and_nothing_else(kind: kinds.Kind, read: Any) -> None:
    values = read(json.dumps(VALUES))
    assert {name for name, value in values.items() if kind.fits(value)} == FITTING[kind]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_every_value_has_a_word(value: object) -> None:
    assert kinds.kind_of(json.loads(json.dumps(value))) in {
        "null", "text", "true or false", "a number", "a list"
    }  # fmt: skip


def test_an_object_that_cannot_be_read_is_the_callers_error_with_the_callers_remedy(tmp_path: Path) -> None:
    path = tmp_path / "told.json"
    for content, what in ((None, "does not exist"), ("{", "cannot be read"), ("[1]", "holds a list")):
        if content is not None:
            path.write_text(content)
        with pytest.raises(EvaluationError, match=rf"told\.json {what}.*; run it again"):
            read_json(path, EvaluationError, "run it again")
    write_json(path, {"a": 1}, overwrite=True)
    assert read_json(path) == {"a": 1}
