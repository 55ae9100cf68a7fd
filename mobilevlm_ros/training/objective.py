# SPDX-License-Identifier: Apache-2.0
"""The loss of a batch: pictures spliced into the text, next-token cross-entropy at the taught positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilevlm_ros.model.config import LanguageConfig
from mobilevlm_ros.model.llama import Llama
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.processing.splice import splice_parts
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN
from mobilevlm_ros.training.data.batch import Batch
from mobilevlm_ros.training.data.labels import IGNORE


class LanguageModel(nn.Module):
    """MobileLLaMA alone, with the checkpoints' names: what is trained before it learns to see."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Llama(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Makes the output head the embedding table where the configuration says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Token ids [...] -> embeddings [...,H]."""
        embeddings: Tensor = self.model.embed_tokens(ids)
        return embeddings

    def hidden_states(self, embeddings: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """[B,T,H] -> [B,T,H], before the output head."""
        hidden: Tensor = self.model(embeddings, None, mask, None)
        return hidden


class Objective(nn.Module):
    """`forward(batch)` is the mean loss over the batch's taught tokens; a batch that teaches nothing gives
    0."""

    def __init__(self, model: MobileVLM | LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        if isinstance(self.model, MobileVLM):
            embeddings, labels, mask = splice(self.model, batch)
        else:
            embeddings, labels, mask = self.model.embed_tokens(batch.ids), batch.labels, batch.mask
        hidden = self.model.hidden_states(embeddings, mask=attention_mask(mask))
        target = labels[:, 1:]
        taught = target != IGNORE
        logits = self.model.lm_head(hidden[:, :-1][taught]).float()
        return F.cross_entropy(logits, target[taught], reduction="sum") / max(1, int(taught.sum()))


def splice(model: MobileVLM, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings [B,T',H], labels i64[B,T'] and mask bool[B,T'] with image tokens at each IMAGE_TOKEN.

    A sample without pictures takes nothing of its zero picture, but that empty slice stays in the graph: the
    projector gets zero gradients rather than none, so AdamW's momentum moves it, as officially.
    """
    assert batch.pixels is not None
    with torch.no_grad():  # the tower is never trained
        features = model.encode_features(batch.pixels)
    images = model.project(features)
    rows, row_labels, row_masks = [], [], []
    first = 0
    for ids, labels, mask, count in zip(batch.ids, batch.labels, batch.mask, batch.pictures):
        tokens = ids.tolist()
        shown = tokens.count(IMAGE_TOKEN)
        own, unused = images[first : first + shown], images[first + shown : first + count]
        first += count

        def embed(part: slice, ids: Tensor = ids) -> Tensor:
            return model.embed_tokens(ids[part])

        parts = splice_parts(tokens, list(own), embed)
        untaught = [labels.new_full((len(picture),), IGNORE) for picture in own]
        present = [mask.new_ones(len(picture)) for picture in own]
        rows.append(torch.cat([*parts, unused.flatten(0, 1)[:0].to(parts[-1].dtype)]))
        row_labels.append(torch.cat(splice_parts(tokens, untaught, labels.__getitem__)))
        row_masks.append(torch.cat(splice_parts(tokens, present, mask.__getitem__)))
    return (
        nn.utils.rnn.pad_sequence(rows, batch_first=True),
        nn.utils.rnn.pad_sequence(row_labels, batch_first=True, padding_value=IGNORE),
        nn.utils.rnn.pad_sequence(row_masks, batch_first=True),
    )


def attention_mask(present: Tensor) -> Tensor | None:
    """Who may see whom, bool[B,1,T,T]: causal, and never a padding key; None where plain causal does."""
    if bool(present.all()):
        return None
    length = present.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=present.device).tril()
    return causal & present[:, None, None, :]
