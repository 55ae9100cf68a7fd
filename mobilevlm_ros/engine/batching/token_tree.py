# SPDX-License-Identifier: Apache-2.0
"""Continuations of one prompt as a tree: what several begin with alike is read once, and each token sees the
prompt and its own branch only (the attention mask of SpecInfer, arXiv 2305.09781 section 4, for questions).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TreeBatch:
    """Tokens to read in one run, parents before children.

    Attributes:
        embeddings: f32 [N, H].
        positions: i64 [N], the tokens' places in their own sequences, the prompt included.
        visible: bool [N, total], which rows of the cache after this run each token sees.
        wanted: how many of the last rows have to yield logits.
        picked: for each branch, which of those rows are its own, counted from the first of them.
    """

    embeddings: NDArray[np.float32]
    positions: NDArray[np.int64]
    visible: NDArray[np.bool_]
    needs_logits: int
    logit_rows: dict[int, NDArray[np.intp]]


class TokenTree:
    """Branches behind a prompt. A run's rows lie behind those of all runs before, whatever their branches.

    Args:
        length: tokens of the prompt.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        """Rows of the prompt and of all runs so far."""
        self._prompt = length
        self._paths: dict[int, tuple[int, ...]] = {}  # of each branch, the rows behind the prompt

    def grow(self, pieces: Mapping[int, NDArray[np.float32]], num_logits: int = 1) -> TreeBatch:
        """The next run: `pieces` f32 [T, H], T >= 1, continue the branches of these numbers.

        A number that is new begins a branch right behind the prompt. `num_logits` of the last tokens of each
        piece are wanted (or as many as it has).
        """
        nodes: list[_Node] = []
        known: dict[tuple[int, tuple[int, ...], bytes], int] = {}
        own: dict[int, list[int]] = {}
        for branch, piece in pieces.items():
            path, parent, own[branch] = self._paths.get(branch, ()), -1, []
            for depth, row in enumerate(piece, len(path)):
                at = known.setdefault((parent, path, row.tobytes()), len(nodes))
                if at == len(nodes):
                    nodes.append(_Node(row, parent, path, depth))
                parent = at
                own[branch].append(at)
            for at in own[branch][len(piece) - min(num_logits, len(piece)) :]:
                nodes[at].needs_logits = True
        return self._placed(nodes, own, num_logits)

    def _placed(self, nodes: list[_Node], own: dict[int, list[int]], num_logits: int) -> TreeBatch:
        for node in nodes:  # what follows a wanted one can only come after it
            node.needs_logits = node.needs_logits or (node.parent >= 0 and nodes[node.parent].needs_logits)
        order = sorted(range(len(nodes)), key=lambda at: nodes[at].needs_logits)
        place = {at: row for row, at in enumerate(order)}
        start, self.length = self.length, self.length + len(nodes)
        visible = np.zeros((len(nodes), self.length), np.bool_)
        visible[:, : self._prompt] = True
        for row, node in enumerate(nodes[at] for at in order):
            if node.parent >= 0:
                visible[row] = visible[place[node.parent]]
            else:
                visible[row, list(node.path)] = True
            visible[row, start + row] = True
        first = sum(not node.needs_logits for node in nodes)
        logit_rows = {}
        for branch, path in own.items():
            rows = [place[at] for at in path]
            self._paths[branch] = (*self._paths.get(branch, ()), *(start + row for row in rows))
            logit_rows[branch] = np.array(rows[len(rows) - min(num_logits, len(rows)) :], np.intp) - first
        return TreeBatch(
            np.stack([nodes[at].embedding for at in order]),
            np.array([self._prompt + nodes[at].depth for at in order], np.int64),
            visible,
            len(nodes) - first,
            logit_rows,
        )


@dataclass
class _Node:
    embedding: NDArray[np.float32]
    parent: int  # among this run's nodes; -1: what follows is behind `path`
    path: tuple[int, ...]
    depth: int
    needs_logits: bool = False
