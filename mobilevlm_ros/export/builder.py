# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to a bundle. Needs PyTorch (to read checkpoints) and onnx; serving needs neither."""

from __future__ import annotations

from pathlib import Path

from mobilevlm_ros.engine.bundle import Bundle
from mobilevlm_ros.export.bundle_directory import BUNDLE, keep_plans
from mobilevlm_ros.export.options import BuildOptions
from mobilevlm_ros.export.source import open_source
from mobilevlm_ros.export.stages import Build, Progress, Steps
from mobilevlm_ros.files.atomic_directory import check_directory, new_directory


def build_bundle(
    checkpoint: str | Path,
    out_dir: str | Path,
    options: BuildOptions | None = None,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Makes the bundle `out_dir` from a checkpoint, one layer in memory at a time.

    `checkpoint` is what export.source.open_source takes. `force` replaces a bundle that is already there. The
    directory appears only when it is complete; an error or Ctrl-C leaves nothing.
    Raises CheckpointError when the checkpoint cannot be used, OptionError when the precision names matrices
    that it has not, BundleError when the bundle cannot be written, ImageError when the calibration's pictures
    cannot be used.
    """
    options = options or BuildOptions()
    out = check_directory(Path(out_dir), BUNDLE, overwrite=force)
    source = open_source(checkpoint, options.revision, options.mmproj)
    options.precision.check(source.config.language)
    with new_directory(Path(out_dir), BUNDLE, overwrite=force) as work:
        build = Build(source, options, work)
        stages = build.stages()
        steps = Steps(sum(stage.steps for stage in stages), progress)
        for stage in stages:
            stage.run(steps)
        keep_plans(out, work)
    steps.next("done")
    assert build.manifest is not None
    return Bundle(out, build.manifest)
