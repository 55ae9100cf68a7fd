# SPDX-License-Identifier: Apache-2.0
"""The PyTorch definition gives the official model's numbers, cached or not, packed or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mobilevlm_ros.errors import QuestionError
from mobilevlm_ros.model.config import LanguageConfig, MobileVLMConfig
from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.model.vision_config import VisionConfig
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN

MODELS = [("tiny-ldpnet", "v1.npz"), ("tiny-ldpnetv2", "v2.npz")]


def relative(actual: torch.Tensor, expected: np.ndarray) -> float:
    """Largest difference over the largest value."""
    return float(np.abs(actual.numpy() - expected).max() / np.abs(expected).max())


def greedy(model: MobileVLM, embeddings: torch.Tensor, cached: bool, count: int = 20) -> list[int]:
    cache = model.new_cache(capacity=embeddings.shape[1] + count) if cached else None
    ids: list[int] = []
    inputs = embeddings
    for _ in range(count):
        ids.append(int(model(inputs, cache=cache)[0, -1].argmax()))
        new = model.embed_tokens(torch.tensor([ids[-1:]]))
        inputs = new if cached else torch.cat([inputs, new], dim=1)
    return ids


@pytest.mark.parametrize(("name", "outputs"), MODELS)
@pytest.mark.parametrize("image", ["landscape", "portrait"])
@torch.inference_mode()
def test_every_stage_is_the_official_one(parity, model, name, outputs, image):
    vlm, expected = model(name), np.load(parity / outputs)
    features = vlm.encode_features(torch.from_numpy(expected[f"{image}/pixel_values"]))
    assert relative(features, expected[f"{image}/vision_features"]) < 2e-4
    tokens = vlm.project(features)
    assert relative(tokens, expected[f"{image}/projector"]) < 2e-4
    prompt = vlm.embed_prompt(expected[f"{image}/input_ids"][0].tolist(), tokens)
    assert relative(vlm(prompt), expected[f"{image}/logits"]) < 1e-3
    assert greedy(vlm, prompt, cached=True) == expected[f"{image}/greedy"][0].tolist()


@pytest.mark.parametrize(("name", "outputs"), MODELS)
@torch.inference_mode()
def test_a_prompt_without_an_image_too(parity, model, name, outputs):
    vlm, expected = model(name), np.load(parity / outputs)
    prompt = vlm.embed_prompt(expected["text/input_ids"][0].tolist())
    assert relative(vlm(prompt), expected["text/logits"]) < 1e-3
    official = expected["text/greedy"][0].tolist()
    assert greedy(vlm, prompt, cached=True) == official
    assert greedy(vlm, prompt, cached=False) == official


@pytest.mark.parametrize(("name", "outputs"), MODELS)
@torch.inference_mode()
def test_a_batch_of_images_is_encoded_as_one_by_one(parity, model, name, outputs):
    vlm, expected = model(name), np.load(parity / outputs)
    pixels = np.concatenate([expected["landscape/pixel_values"], expected["portrait/pixel_values"]])
    tokens = vlm.encode_images(torch.from_numpy(pixels))
    assert relative(tokens[1:], expected["portrait/projector"]) < 2e-4


@torch.inference_mode()
def test_prefill_in_pieces_is_prefill_at_once(model):
    vlm = model("tiny-ldpnetv2")
    embeddings = vlm.embed_tokens(torch.randint(3, 480, (2, 23), generator=torch.Generator().manual_seed(0)))
    cache = vlm.new_cache(batch=2, capacity=23)
    pieces = [vlm(part, cache=cache) for part in embeddings.split([7, 1, 10, 5], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), vlm(embeddings), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_questions_packed_behind_one_image_do_not_see_each_other(model):
    vlm = model("tiny-ldpnet")
    random = torch.Generator().manual_seed(1)
    prefix, *questions = (
        vlm.embed_tokens(torch.randint(3, 480, (1, n), generator=random)) for n in (9, 5, 3, 8)
    )
    packed = torch.cat([prefix, *questions], dim=1)
    owner = torch.tensor([0] * 9 + [1] * 5 + [2] * 3 + [3] * 8)
    mask = torch.ones(25, 25, dtype=torch.bool).tril() & ((owner[:, None] == owner) | (owner == 0))
    positions = torch.tensor([*range(9), *range(9, 14), *range(9, 12), *range(9, 17)])
    together = vlm(packed, positions=positions, mask=mask)
    batched = vlm(packed.expand(2, -1, -1), positions=positions.expand(2, -1), mask=mask.expand(2, 1, -1, -1))
    torch.testing.assert_close(batched[1:], together, atol=1e-5, rtol=1e-5)
    for number, question in enumerate(questions, start=1):
        alone = vlm(torch.cat([prefix, question], dim=1))[:, 9:]
        torch.testing.assert_close(together[:, owner == number], alone, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_padding_that_nobody_attends_to_changes_nothing(model):
    vlm = model("tiny-ldpnetv2")
    real = vlm.embed_tokens(torch.arange(3, 15)[None])
    padded = torch.cat([real, torch.zeros(1, 6, 64)], dim=1)
    mask = torch.ones(18, 18, dtype=torch.bool).tril()
    mask[:, 12:] = torch.eye(18, dtype=torch.bool)[:, 12:]
    torch.testing.assert_close(vlm(padded, mask=mask)[:, :12], vlm(real), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("ids", "images"), [([1, IMAGE_TOKEN, 5], 0), ([1, 5], 1), ([IMAGE_TOKEN], 2)])
def test_images_and_placeholders_must_match(model, ids, images):
    with pytest.raises(QuestionError, match=f"{images} images"):
        model("tiny-ldpnet").embed_prompt(ids, torch.zeros(images, 144, 64) if images else None)


@torch.inference_mode()
def test_several_images_go_to_their_places_in_order(model):
    vlm = model("tiny-ldpnet")
    images = torch.stack([torch.full((2, 64), 1.0), torch.full((2, 64), 2.0)])
    prompt = vlm.embed_prompt([1, IMAGE_TOKEN, 5, IMAGE_TOKEN], images)
    assert prompt[0, :, 0].tolist()[1:3] == [1.0, 1.0]
    assert prompt[0, :, 0].tolist()[4:] == [2.0, 2.0]
    torch.testing.assert_close(prompt[0, 3], vlm.embed_tokens(torch.tensor(5)))


def tiny(**changes: object) -> MobileVLMConfig:
    vision = VisionConfig(24, 48, 12, 48, 4, 3)
    return MobileVLMConfig(vision, LanguageConfig(480, 32, 64, 2, 4, 2), "ldpnet", **changes)  # type: ignore[arg-type]


def test_it_learns_in_bfloat16_with_a_mask_through_every_used_parameter():
    torch.manual_seed(0)
    config = tiny()
    vlm = MobileVLM(config)
    vlm.initialize()
    optimizer = torch.optim.AdamW(vlm.parameters(), lr=3e-3)
    pixels, ids = torch.randn(2, 3, 48, 48), torch.randint(3, 480, (2, 6))
    length = config.num_image_tokens + 5
    mask = torch.ones(length, length, dtype=torch.bool).tril().expand(2, 1, -1, -1)
    losses = []
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16):
            image = vlm.encode_images(pixels)
            inputs = torch.cat([image, vlm.embed_tokens(ids[:, :-1])], dim=1)
            hidden = vlm.hidden_states(inputs, mask=mask, positions=torch.arange(length))
            logits = vlm.lm_head(hidden[:, -5:])
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3
    without = {name for name, parameter in vlm.named_parameters() if parameter.grad is None}
    assert all("encoder.layers.2." in name or "post_layernorm" in name for name in without)


@torch.inference_mode()
def test_fresh_weights_give_lively_images_and_repeat_with_the_seed():
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        vlm = MobileVLM(tiny())
        vlm.initialize()
        outputs.append(vlm.encode_images(torch.ones(1, 3, 48, 48)))
    torch.testing.assert_close(*outputs)
    assert outputs[0].std() > 0.1
