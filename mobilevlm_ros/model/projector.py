# SPDX-License-Identifier: Apache-2.0
"""Projectors: from the tower's patch features [B,N,D] to image tokens of the language model [B,M,H].

`ldpnet` (MobileVLM) and `ldpnetv2` (MobileVLM V2) quarter the number of tokens; `linear` and `mlpNx_gelu`,
the papers' ablations, keep it. Parameter names are the checkpoints'; the GELU is the exact one (erf).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mobilevlm_ros.model.config import LDPV2_GRID, MobileVLMConfig


def build_projector(config: MobileVLMConfig) -> nn.Module:
    """The projector that `config.projector_type` names. Types match by prefix, `ldpnetv2` before `ldpnet`."""
    kind, size_in, size_out = config.projector_type, config.vision.hidden_size, config.language.hidden_size
    if kind.startswith("ldpnetv2"):
        return LDPNetV2(size_in, size_out)
    if kind.startswith("ldpnet"):
        return LDPNet(size_in, size_out)
    if kind == "linear":
        return nn.Linear(size_in, size_out)
    depth = int(kind.removeprefix("mlp").removesuffix("x_gelu"))
    return _mlp(size_in, size_out, depth)


def _mlp(size_in: int, size_out: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(size_in, size_out)]
    for _ in range(1, depth):
        layers += [nn.GELU(), nn.Linear(size_out, size_out)]
    return nn.Sequential(*layers)


def _to_grid(tokens: Tensor) -> Tensor:
    """[B,N,C] -> [B,C,g,g], row by row."""
    grid = int(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).reshape(len(tokens), -1, grid, grid)


def _to_tokens(grid: Tensor) -> Tensor:
    """[B,C,h,w] -> [B,h*w,C]"""
    return grid.flatten(2).transpose(1, 2)


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of [B,C,h,w]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from all channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # MobileNetV3 squeezes to a quarter, rounded to a multiple of 8 and never more than 10 % below.
        squeezed = max(8, (channels // 4 + 4) // 8 * 8)
        if squeezed < 0.9 * (channels // 4):
            squeezed += 8
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * F.hardsigmoid(gate)


class InvertedResidual(nn.Module):
    """MobileNetV3's block, unexpanded: depthwise, squeeze-excitation, pointwise. Stride 1 adds its input."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1
        self.block = nn.Sequential(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False),
                LayerNorm2d(channels, eps=1e-5),
                nn.Hardswish(),
            ),
            SqueezeExcitation(channels),
            nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), LayerNorm2d(channels, eps=1e-5)),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y if self.residual else y


class LDPBlock(nn.Module):
    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        # The identities keep the checkpoints' numbering.
        self.mlp = nn.Sequential(nn.Identity(), *_mlp(size_in, size_out, 2))
        self.mb_block = nn.Sequential(
            nn.Identity(), InvertedResidual(size_out, 1), InvertedResidual(size_out, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return _to_tokens(self.mb_block(_to_grid(self.mlp(x))))


class LDPNet(nn.Module):
    """The lightweight downsample projector of MobileVLM."""

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        self.model = LDPBlock(size_in, size_out)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.model(x)
        return tokens


class LDPNetV2(nn.Module):
    """The projector of MobileVLM V2: an MLP, average pooling to 12 x 12, a positional convolution."""

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        self.mlp = nn.ModuleDict({"mlp": _mlp(size_in, size_out, 2)})
        positional = nn.Conv2d(size_out, size_out, 3, 1, padding=1, groups=size_out)
        self.peg = nn.ModuleDict({"peg": nn.Sequential(positional)})

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(_to_grid(self.mlp["mlp"](x)), LDPV2_GRID)
        return _to_tokens(self.peg["peg"](pooled) + pooled)
