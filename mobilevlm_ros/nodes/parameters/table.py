# SPDX-License-Identifier: Apache-2.0
"""The table of the node's parameters: defaults, bounds, and whether each may change while the node runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rclpy.exceptions import InvalidTopicNameException
from rclpy.expand_topic_name import expand_topic_name
from rclpy.validate_full_topic_name import validate_full_topic_name

from mobilevlm_ros.engine.runtime import BACKEND_NAMES
from mobilevlm_ros.errors import ConfigurationError, QuestionError
from mobilevlm_ros.inference.assistant import CAPTION_PROMPT
from mobilevlm_ros.inference.validate import MAX_QUESTION, MAX_TOKENS, check_system_prompt, clean_text
from mobilevlm_ros.nodes.parameters.spec import MEMORY, Spec
from mobilevlm_ros.ros.images.encodings import parse_encodings

LONGEST_QUESTION = 100_000
"""Upper bound of max_question_length, characters."""


def _check_cameras(names: Sequence[str]) -> str:
    if not names or len(set(names)) != len(names) or "*" in names:
        return f"cameras is {list(names)!r}: give at least one name, each once, and not '*' (all of them)"
    for name in filter(None, names):
        try:
            validate_full_topic_name(expand_topic_name(f"{name}/image", "node", "/"))
        except (InvalidTopicNameException, ValueError):
            return (
                f"cameras holds {name!r}, which cannot be part of a topic's name: take letters, digits and "
                "underscores, a letter first; slashes may stand between"
            )
    return ""


def _check_encodings(entries: Sequence[str]) -> str:
    try:
        parse_encodings(entries)
    except ConfigurationError as error:
        return str(error)
    return ""


def _check_system_prompt(text: str) -> str:
    try:
        check_system_prompt(text)
    except QuestionError as error:
        return f"system_prompt: {error}"
    return ""


def _check_caption_prompt(prompt: str) -> str:
    if not prompt.strip():
        return "caption_prompt is empty: write a question, or set caption_rate to 0 for no captions"
    try:
        clean_text(prompt, "text", MAX_QUESTION)
    except QuestionError as error:
        return f"caption_prompt: {error}"
    return ""


def _check_allowed_paths(paths: Sequence[str]) -> str:
    wrong = [path for path in paths if path and not Path(path).expanduser().is_absolute()]
    return f"allowed_paths holds {wrong[0]!r}: give whole paths, from / or ~" if wrong else ""


def _seconds(name: str, least: float, none: str) -> Callable[[float], str]:
    """A check of a time that is 0 or negative for none, as `none` says, and else long enough to work."""

    def check(value: float) -> str:
        is_none = value < 0 if none == "negative" else value == 0
        if is_none or value >= least:
            return ""
        return f"{name} is {value:g} s, with which nothing would ever work: give {least:g} or more, or {none}"

    return check


SPECS = (
    # ---- model
    Spec("bundle", "", "Directory of the model bundle; empty = the nano model that comes with the package."),
    Spec(
        "backend",
        "auto",
        "Engine that runs the bundle: auto takes the best that loads here (docs/engines.md).",
        choices=BACKEND_NAMES,
    ),
    Spec(
        "threads",
        0,
        "CPU threads of the engine; 0 = what `mobilevlm tune` found here, else one per physical core.",
        bounds=(0, 256),
    ),
    Spec(
        "spin_threads",
        False,
        "Idle engine threads busy-wait: faster alone, far slower beside other processes.",
    ),
    # ---- cameras
    Spec(
        "cameras",
        [""],
        "Names of the cameras; one listens to <name>/image, the empty name to image.",
        check=_check_cameras,
    ),
    Spec(
        "transport",
        "auto",
        "Which topic to listen to: raw (image), compressed (image/compressed), or auto: raw where it is "
        "published and arrives, else compressed.",
        choices=("auto", "raw", "compressed"),
    ),
    Spec(
        "reliability",
        "best_effort",
        "QoS of the image subscriptions; best_effort also receives from reliable publishers.",
        choices=("best_effort", "reliable"),
    ),
    Spec(
        "encodings",
        [""],
        "How to read image encodings that do not say it: '16UC1=mono16', or 'front: 16UC1=mono16' for one "
        "camera; mono12 and the like stretch fewer bits (docs/pictures.md).",
        check=_check_encodings,
    ),
    Spec(
        "history_mb",
        0,
        "Memory for each camera's recent images, MiB, so that a request's `stamp` can name one, and its "
        "`frames` several; 0 = only the newest, which stays in the middleware until it is needed.",
        bounds=(0, 65536),
    ),
    Spec(
        "history_rate",
        2.0,
        "Images per second and camera that are kept where history_mb is above 0.",
        bounds=(0.1, 60.0),
    ),
    # ---- questions
    Spec(
        "queue_size",
        16,
        "Requests that may wait, for their turn or for a frame; more get BUSY.",
        bounds=(1, 1000),
    ),
    Spec("prefix_cache_mb", 256, "Memory for frames kept for follow-up questions, MiB.", bounds=(0, 65536)),
    Spec(
        "max_age",
        2.0,
        "Oldest frame that a question may be about, seconds; negative = any.",
        True,
        (-1.0, 86400.0),
        check=_seconds("max_age", 0.001, "negative"),
    ),
    Spec(
        "timeout",
        30.0,
        "Time limit of a request that names none, seconds; negative = none.",
        True,
        (-1.0, 86400.0),
        check=_seconds("timeout", 0.01, "negative"),
    ),
    Spec(
        "max_tokens", 64, "Length limit of an answer whose request names none, tokens.", True, (1, MAX_TOKENS)
    ),
    Spec("max_question_length", MAX_QUESTION, "Longest question, characters.", True, (1, LONGEST_QUESTION)),
    Spec(
        "system_prompt",
        "",
        "Text before every conversation; empty = the preset's, or the one that the model was trained with.",
        live=True,
        check=_check_system_prompt,
    ),
    Spec(
        "preset", "", "Name of the preset whose text is before every conversation; empty = none.", live=True
    ),
    Spec("presets_file", "", "YAML file with presets; empty = config/presets.yaml of the package."),
    Spec(
        "sessions_max",
        16,
        "Conversations that are remembered; beyond it one that was idle for a minute is forgotten, else the "
        "one that began last; 0 keeps none.",
        live=True,
        bounds=(0, 1000),
    ),
    Spec(
        "session_idle",
        600.0,
        "Seconds without a question after which a conversation is forgotten.",
        live=True,
        bounds=(1.0, 604800.0),
    ),
    Spec(
        "session_tokens",
        1024,
        "Length of a conversation that the model still reads, tokens; beyond it the oldest turns are "
        "forgotten. For conversations that begin after a change.",
        live=True,
        bounds=(64, 1_000_000),
    ),
    Spec(
        "sessions_mb",
        256,
        "Memory for what the model has read of conversations, MiB; beyond it old ones are read again.",
        live=True,
        bounds=(0, 65536),
    ),
    # ---- captions
    Spec(
        "caption_rate",
        1.0,
        "Captions per second and camera on ~/captions, made only while someone listens; 0 = none.",
        True,
        (0.0, 20.0),
    ),
    Spec(
        "caption_prompt",
        CAPTION_PROMPT,
        "Question that captions answer.",
        live=True,
        check=_check_caption_prompt,
    ),
    Spec("caption_max_tokens", 64, "Length limit of a caption, tokens.", True, (1, MAX_TOKENS)),
    Spec(
        "caption_novelty",
        0.0,
        "How much some patch of the picture must have changed since the last caption for a new one: 0 = no "
        "need, 1 = from black to white; 0.05 notices a person 10 m away.",
        True,
        (0.0, 1.0),
    ),
    Spec(
        "caption_preempted",
        "drop",
        "What becomes of a caption that gives way to a question or a monitor: it is dropped for one of a "
        "newer picture, or resumed.",
        live=True,
        choices=("drop", "resume"),
    ),
    # ---- monitors
    Spec(
        "monitors_file",
        "",
        "YAML file with monitors (config/monitors.yaml is one); empty = none. Setting it again, to the same "
        "path too, reads it again.",
        live=True,
    ),
    *MEMORY,
    # ---- reports
    Spec(
        "annotated_rate",
        2.0,
        "Pictures per second and camera on ~/annotated_image, made only while someone listens; 0 = none.",
        True,
        (0.0, 30.0),
    ),
    Spec(
        "metrics_period",
        1.0,
        "Seconds between messages on ~/metrics, sent only while someone listens.",
        True,
        (0.1, 3600.0),
    ),
    # ---- operation
    Spec("diagnostics_period", 1.0, "Seconds between messages on /diagnostics.", bounds=(0.1, 3600.0)),
    Spec(
        "self_test",
        True,
        "Before it answers, ask the model about a built-in picture; refuse it when its answer is wrong or "
        "empty.",
        live=True,
    ),
    Spec(
        "hang_timeout",
        120.0,
        "Seconds without progress (of the executor, or within one step of the model) after which the node "
        "ends itself with exit code 70 and its threads' stacks in the log, so that launch starts it again; "
        "0 = never.",
        True,
        (0.0, 86400.0),
        check=_seconds("hang_timeout", 1.0, "0"),
    ),
    Spec(
        "bond_heartbeat_period",
        0.0,
        "Seconds between heartbeats for nav2's lifecycle manager; 0 = none. Needs the package bond.",
        bounds=(0.0, 1.0),
        check=_seconds("bond_heartbeat_period", 0.01, "0"),
    ),
    Spec(
        "allowed_paths",
        [""],
        "Directories of the files (and bundles) that may be named over the graph, besides those that the "
        "node was started with and the package's own; given at the start only.",
        check=_check_allowed_paths,
    ),
    Spec("autostart", True, "Configure and activate the node when it starts."),
)
