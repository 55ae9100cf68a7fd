# SPDX-License-Identifier: Apache-2.0
"""MobileLLaMA: pre-norm RMSNorm, rotary attention, SiLU-gated MLP. Parameter names are the checkpoints'."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobilevlm_ros.errors import ContextOverflow
from mobilevlm_ros.model.config import LanguageConfig


class KVCache:
    """Keys and values of the positions seen so far, for every layer, with room for `capacity` positions."""

    def __init__(
        self,
        config: LanguageConfig,
        batch: int = 1,
        capacity: int | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.capacity = config.context_length if capacity is None else capacity
        self.length = 0
        shape = (
            config.num_hidden_layers,
            2,
            batch,
            config.num_key_value_heads,
            self.capacity,
            config.head_dim,
        )
        self._store = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def batch(self) -> int:
        return self._store.shape[2]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes [B,heads,T,D] behind the first `length` positions; returns views of all `length` + T."""
        end = self.length + keys.shape[2]
        store = self._store[layer, :, :, :, :end]
        store[0, :, :, self.length :] = keys
        store[1, :, :, self.length :] = values
        return store[0], store[1]

    def advance(self, count: int) -> None:
        self.length += count

    def truncate(self, length: int) -> None:
        """Forgets every position from `length` on."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate a cache of {self.length} positions to {length}")
        self.length = length

    @property
    def nbytes(self) -> int:
        return self._store.nbytes

    def copy(self, batch: int | None = None, capacity: int | None = None) -> KVCache:
        """An independent cache with the same contents; a cache of batch 1 can be repeated to a larger batch.

        `capacity` defaults to this cache's. Raises ValueError when it is less than `length`.
        """
        if batch not in (None, self.batch) and self.batch != 1:
            raise ValueError(f"cannot repeat a cache of batch {self.batch}")
        twin = object.__new__(KVCache)
        twin.capacity, twin.length = self.capacity if capacity is None else capacity, self.length
        if twin.capacity < self.length:
            raise ValueError(f"a capacity of {capacity} cannot hold the {self.length} positions of the cache")
        shape = list(self._store.shape)
        shape[2], shape[4] = batch or self.batch, twin.capacity
        twin._store = self._store.new_zeros(shape)
        twin._store[:, :, :, :, : self.length] = self._store[:, :, :, :, : self.length]
        return twin


def rotary_tables(config: LanguageConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines f32[...,T,head_dim] for integer positions [...,T].

    Linear interpolation divides the position by `rope_factor`: a longer context spans the trained angles.
    """
    even = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=positions.device)
    frequencies = config.rope_theta ** -(even / config.head_dim)
    angles = (positions.float() / config.rope_factor).unsqueeze(-1) * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine


class Attention(nn.Module):
    def __init__(self, config: LanguageConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.head_dim = config.head_dim
        self.groups = config.num_attention_heads // config.num_key_value_heads
        size, narrow = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(size, size, bias=False)
        self.k_proj = nn.Linear(size, narrow, bias=False)
        self.v_proj = nn.Linear(size, narrow, bias=False)
        self.o_proj = nn.Linear(size, size, bias=False)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        y: Tensor = self.o_proj(self.attend(x, rotary, mask, cache))
        return y

    def attend(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        """What `o_proj` reads: the heads' outputs [B,T,H], side by side."""
        shape = (*x.shape[:2], -1, self.head_dim)
        q, k, v = (p(x).view(shape).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        cosine, sine = (table.to(q.dtype) for table in rotary)
        q, k = _rotate(q, cosine, sine), _rotate(k, cosine, sine)
        if cache is not None:
            k, v = cache.append(self.index, k, v)
        if self.groups > 1:
            k, v = k.repeat_interleave(self.groups, 1), v.repeat_interleave(self.groups, 1)
        causal = mask is None and q.shape[2] > 1
        y: Tensor = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return y.transpose(1, 2).flatten(2)


class MLP(nn.Module):
    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down_proj(self.gate(x))
        return y

    def gate(self, x: Tensor) -> Tensor:
        """What `down_proj` reads, [B,T,intermediate_size]."""
        y: Tensor = F.silu(self.gate_proj(x)) * self.up_proj(x)
        return y


class Layer(nn.Module):
    def __init__(self, config: LanguageConfig, index: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, index)
        self.mlp = MLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, mask, cache)
        y: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return y


class Llama(nn.Module):
    """Embeddings [B,T,H] to final hidden states [B,T,H]."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """See `MobileVLM.forward`."""
        past, new = (cache.length if cache is not None else 0), x.shape[1]
        if cache is not None and past + new > cache.capacity:
            raise ContextOverflow(
                f"{past} + {new} positions exceed a context of {cache.capacity}; shorten question or answer"
            )
        if positions is None:
            positions = torch.arange(past, past + new, device=x.device)
        if mask is None and past and new > 1:
            mask = torch.ones(new, past + new, dtype=torch.bool, device=x.device).tril(past)
        # One row of angles for all heads: [B,1,T,D], or [T,D] for the whole batch.
        rotary = tuple(t.unsqueeze(1) if t.ndim == 3 else t for t in rotary_tables(self.config, positions))
        for layer in self.layers:
            x = layer(x, rotary, mask, cache)
        if cache is not None:
            cache.advance(new)
        x = self.norm(x)
        return x
