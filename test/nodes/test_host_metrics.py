# SPDX-License-Identifier: Apache-2.0
import math
import mmap
from pathlib import Path

from mobilevlm_ros.nodes.host_metrics import hottest, resident_memory


def test_memory_grows_with_what_is_held() -> None:
    before = resident_memory()
    with mmap.mmap(-1, 64 << 20) as held:  # not from the allocator, which may have pages to reuse
        held.write(bytes(range(256)) * (len(held) // 256))
        assert before > 1 << 20 and resident_memory() - before > 48 << 20


def test_where_the_system_tells_nothing_there_is_nothing(tmp_path: Path) -> None:
    assert resident_memory(tmp_path / "statm") == 0 and math.isnan(hottest(tmp_path))
    (tmp_path / "statm").write_text("odd")
    assert resident_memory(tmp_path / "statm") == 0


def test_the_hottest_sensor_that_makes_sense_is_told(tmp_path: Path) -> None:
    for file, text in (
        ("thermal/thermal_zone0/temp", "41500\n"),
        ("thermal/thermal_zone1/temp", "-256000\n"),  # not connected
        ("hwmon/hwmon3/temp1_input", "67250\n"),
        ("hwmon/hwmon3/temp2_input", "N/A\n"),
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    (tmp_path / "thermal/thermal_zone2").mkdir()
    (tmp_path / "thermal/thermal_zone2/temp").mkdir()  # cannot be read
    assert hottest(tmp_path) == 67.25
