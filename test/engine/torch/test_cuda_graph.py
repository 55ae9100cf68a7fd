# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import torch

from mobilevlm_ros.engine.torch.backend import TorchLanguage
from mobilevlm_ros.engine.torch.cuda_graph import GraphedDecoder


def test_a_fixed_cache_decodes_as_a_growing_one(language_model, embeddings):
    model = language_model(num_key_value_heads=2)
    decoder, reference = GraphedDecoder(model, 32), TorchLanguage(model)
    inputs = embeddings(1, 12)
    for _ in range(2):  # a second prompt begins anew
        cache = reference.new_cache()
        rows = [decoder.prefill(torch.from_numpy(inputs[:, :5])).numpy().copy()]
        expected = [reference.forward(inputs[:, :5], cache)[0, 0]]
        for step in range(5, 12):
            token = inputs[:, step : step + 1]
            rows.append(decoder.step(torch.from_numpy(token)).numpy().copy())
            expected.append(reference.forward(token, cache)[0, 0])
        np.testing.assert_allclose(np.stack(rows), np.stack(expected), atol=1e-5)
