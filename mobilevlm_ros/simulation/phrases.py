# SPDX-License-Identifier: Apache-2.0
"""The ways people ask. Each family has more phrasings than a model can tell apart by one word."""

QUESTIONS: dict[str, tuple[str, ...]] = {
    "existence": (
        "Is there {a}?",
        "Is there {a} in the image?",
        "Do you see {a}?",
        "Can you see {a}?",
        "Is {a} visible?",
        "Is {a} in view?",
        "Does the camera see {a}?",
        "Is there {a} in front of the robot?",
    ),
    "color": (
        "What color is the {kind}?",
        "What colour is the {kind}?",
        "What is the color of the {kind}?",
        "Which color does the {kind} have?",
        "Tell me the color of the {kind}.",
        "The {kind} is what color?",
    ),
    "position": (
        "Where is the {kind}?",
        "On which side is the {kind}?",
        "Is the {kind} on the left, ahead or on the right?",
        "Where do you see the {kind}?",
        "What is the position of the {kind}?",
        "In which direction is the {kind}?",
    ),
    "distance": (
        "Is the {kind} near or far?",
        "How far away is the {kind}?",
        "Is the {kind} close?",
        "How close is the {kind}?",
        "What is the distance to the {kind}?",
        "Tell me whether the {kind} is near or far.",
    ),
    "count": (
        "How many {nouns} are there?",
        "How many {nouns} do you see?",
        "How many {nouns} are in the image?",
        "Count the {nouns}.",
        "What is the number of {nouns}?",
        "How many {nouns} can you see?",
    ),
    "path": (
        "Is the path ahead clear?",
        "Is the road ahead free?",
        "Can the robot drive straight ahead?",
        "Is the way ahead clear?",
        "Is it safe to go forward?",
        "Can I drive on?",
        "Is the path clear?",
    ),
    "signal": (
        "What color is the traffic light?",
        "What does the traffic light show?",
        "What is the state of the traffic light?",
        "Which light is on?",
        "Is the traffic light red, yellow or green?",
        "What is the signal?",
    ),
    "identity": (
        "What is {place}?",
        "What do you see {place}?",
        "What object is {place}?",
        "Which object is {place}?",
        "Tell me what is {place}.",
        "Name the object {place}.",
    ),
    "daylight": (
        "Is it day or dusk?",
        "What time of day is it?",
        "Is it bright day or dusk?",
        "Is this scene by day or at dusk?",
        "How is the light, day or dusk?",
    ),
    "description": (
        "Describe the scene.",
        "What do you see?",
        "Describe the image.",
        "What is in the image?",
        "What is in front of the robot?",
        "Give a short caption.",
        "What is around?",
    ),
}

# The official benchmarks' words: GQA, TextVQA and POPE append the first, MME the first of the second tuple.
SHORT_SUFFIXES: tuple[str, ...] = (
    "\nAnswer the question using a single word or phrase.",
    " Answer in one word.",
    " Answer briefly.",
)
YES_NO_SUFFIXES: tuple[str, ...] = (" Please answer yes or no.", " Yes or no?", " Answer yes or no.")
