# SPDX-License-Identifier: Apache-2.0
"""Conversations about one thing say what the picture shows, turn after turn."""

import numpy as np

from mobilevlm_ros.simulation.follow_ups import checked, follow_up
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene import KINDS
from mobilevlm_ros.simulation.scene_sampler import sample_scene


def test_every_answer_is_true_of_the_thing_it_names() -> None:
    rng = np.random.default_rng(5)
    turns_seen = 0
    for seed in range(80):
        observation = observe(sample_scene(seed), 0.0, 160, 120)
        things = {seen.thing.kind: seen.thing for seen in observation.seen}
        turns = follow_up(observation, rng)
        if turns is None:
            continue
        assert 2 <= len(turns) <= 4
        for _, answer in turns:
            named = [kind for kind in KINDS if f"The {kind} is" in answer or f"the {kind} is" in answer]
            for kind in named:
                thing = things[kind]
                true = {
                    thing.color,
                    "near" if thing.is_near else "far",
                    "ahead",
                    "on the left",
                    "on the right",
                }
                said = answer.rstrip(".").rpartition(" is ")[2]
                assert said in true
                if said.startswith("on the"):
                    assert said.endswith(thing.zone)
                turns_seen += 1
    assert turns_seen > 50


def test_checks_say_yes_only_where_it_is_so() -> None:
    rng = np.random.default_rng(6)
    answers = []
    for seed in range(120):
        turn = checked(observe(sample_scene(seed), 0.0, 160, 120), rng)
        if turn and "," in turn[1]:
            asked = turn[0].rstrip("?").split()[-1]
            answers.append(turn[1].startswith("Yes"))
            assert turn[1].rstrip(".").endswith(asked) is answers[-1]
    assert 0.2 < np.mean(answers) < 0.8
