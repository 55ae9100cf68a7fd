# SPDX-License-Identifier: Apache-2.0
"""Layer by layer, the reference is the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mobilevlm_ros.checkpoints.checkpoint import load, open_checkpoint
from mobilevlm_ros.export.quality.reference import encode_images, read_logits
from mobilevlm_ros.export.quantization.calibration_set import CalibrationPrompt
from mobilevlm_ros.processing.image import normalize


@pytest.mark.parametrize("checkpoint", ["tiny-ldpnet", "tiny-ldpnetv2"])
def test_it_equals_the_whole_model(parity, checkpoint, embeddings):
    path = parity / "ckpt" / checkpoint
    config, source = open_checkpoint(path)
    model = load(path)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 336, 336, 3), dtype=np.uint8)
    layers: list[str] = []

    def weights(key: str) -> np.ndarray:
        return source.tensor(key).float().numpy()

    tokens = encode_images(weights, config, pixels, lambda: layers.append("tower"))
    prompts = [
        CalibrationPrompt(embeddings(1, n, config.language.hidden_size, n)[0], tail)
        for n, tail in ((9, 3), (20, 20))
    ]
    logits = read_logits(weights, config.language, prompts, lambda: layers.append("language"))
    with torch.inference_mode():
        expected = model.encode_images(torch.from_numpy(normalize(pixels))).numpy()
        np.testing.assert_allclose(tokens, expected, atol=1e-5 * np.abs(expected).max())
        for prompt, rows in zip(prompts, logits, strict=True):
            whole = model(torch.from_numpy(prompt.embeddings)[None])[0, -prompt.tail :].numpy()
            np.testing.assert_allclose(rows, whole, atol=1e-5 * np.abs(whole).max())
    assert layers.count("tower") == config.num_vision_layers
    assert layers.count("language") == config.language.num_hidden_layers
