# SPDX-License-Identifier: Apache-2.0
"""Projectors of every type have the checkpoints' tensors and give the promised number of tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mobilevlm_ros.checkpoints.checkpoint import expected_shapes
from mobilevlm_ros.model.config import LanguageConfig, MobileVLMConfig
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.model.projector import SqueezeExcitation, build_projector
from mobilevlm_ros.model.vision_config import VisionConfig

TINY = LanguageConfig(64, 32, 48, 1, 4, 4)


def config(kind: str, grid: int = 4, **changes: object) -> MobileVLMConfig:
    vision = VisionConfig(16, grid * 2, 2, 32, 2, 2)
    return MobileVLMConfig(vision, TINY, kind, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "grid", "changes", "tokens"),
    [
        ("ldpnet", 4, {}, 4),
        ("ldpnet", 5, {}, 9),
        ("ldpnet", 24, {}, 144),
        ("ldpnetv2", 24, {}, 144),
        ("ldpnetv2", 12, {}, 144),
        ("linear", 4, {}, 16),
        ("mlp2x_gelu", 4, {}, 16),
        ("mlp3x_gelu", 4, {"select_feature": "cls_patch"}, 17),
    ],
)
@torch.inference_mode()
def test_number_of_tokens_is_the_one_the_configuration_promises(kind, grid, changes, tokens):
    configuration = config(kind, grid, **changes)
    model = MobileVLM(configuration)
    assert model.encode_images(torch.randn(2, 3, grid * 2, grid * 2)).shape == (2, tokens, 32)
    assert configuration.num_image_tokens == tokens


def test_linear_and_mlp_are_what_their_names_say():
    linear = build_projector(config("linear"))
    assert isinstance(linear, nn.Linear)
    deep = build_projector(config("mlp4x_gelu"))
    assert [type(layer) for layer in deep.children()] == [nn.Linear, nn.GELU] * 3 + [nn.Linear]
    assert list(deep.state_dict()) == [f"{i}.{n}" for i in (0, 2, 4, 6) for n in ("weight", "bias")]


@torch.inference_mode()
def test_v2_is_its_pooled_mlp_where_the_convolution_is_zero():
    projector = build_projector(config("ldpnetv2", 24))
    for parameter in projector.peg.parameters():
        parameter.zero_()
    x = torch.randn(1, 24, 24, 16)
    pooled = projector.mlp["mlp"](x).unflatten(1, (12, 2)).unflatten(3, (12, 2)).mean((2, 4))
    torch.testing.assert_close(projector(x.flatten(1, 2)), pooled.flatten(1, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("channels", "squeezed"), [(2048, 512), (2560, 640), (192, 48), (64, 16), (32, 8), (80, 24)]
)
def test_squeezed_channels_are_a_quarter_in_steps_of_eight(channels, squeezed):
    assert SqueezeExcitation(channels).fc1.out_channels == squeezed


@pytest.mark.parametrize(
    ("kind", "size", "tensors", "parameters", "projector"),
    [
        ("ldpnet", "1.7B", 634, 1_686_742_016, 18_936_832),
        ("ldpnetv2", "1.7B", 616, 1_674_121_216, 6_316_032),
        ("ldpnet", "3B", 706, 3_033_981_696, 28_913_920),
        ("ldpnetv2", "3B", 688, 3_014_273_536, 9_205_760),
    ],
)
def test_released_sizes(kind, size, tensors, parameters, projector):
    language = LanguageConfig() if size == "1.7B" else LanguageConfig(32000, 2560, 6912, 32, 32, 32)
    shapes = expected_shapes(MobileVLMConfig(language=language, projector_type=kind))
    counts = {key: torch.Size(shape).numel() for key, shape in shapes.items()}
    assert len(shapes) == tensors
    assert sum(counts.values()) == parameters
    assert sum(count for key, count in counts.items() if ".mm_projector." in key) == projector
