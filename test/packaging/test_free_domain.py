# SPDX-License-Identifier: Apache-2.0
import contextlib
import importlib.util
import os
import socket
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location(
    "free_domain", Path(__file__).parents[2] / "tools" / "free_domain.py"
)
assert spec and spec.loader
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)


def occupy(domains: range, stack: contextlib.ExitStack) -> None:
    for domain in domains:
        taken = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with contextlib.suppress(OSError):  # somebody else's already
            taken.bind(("0.0.0.0", 7400 + 250 * domain + 10))


def test_skips_the_domains_in_use() -> None:
    with contextlib.ExitStack() as stack:
        occupy(range(1, 100), stack)
        assert module.free_domain() in (100, 101)
        occupy(range(100, 102), stack)
        with pytest.raises(RuntimeError, match="stop some ROS nodes"):
            module.free_domain()


def test_this_session_has_a_domain_of_its_own() -> None:
    assert 1 <= int(os.environ["ROS_DOMAIN_ID"]) <= 101
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
