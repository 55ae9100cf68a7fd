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

MORE_QUESTIONS: dict[str, tuple[str, ...]] = {
    "existence": (
        "Is {a} there?",
        "Is there {a} in this picture?",
        "Is there {a} here?",
        "Is there any {noun}?",
        "Are there any {nouns}?",
        "Do you see any {nouns}?",
        "Can you see any {nouns}?",
        "Do you see {a} in the image?",
        "Does the image show {a}?",
        "Is there {a} on the road?",
    ),
    "color": (
        "What is the {kind}'s color?",
        "What color does the {kind} have?",
        "Which color is the {kind}?",
        "What color is that {kind}?",
    ),
    "position": (
        "Where's the {kind}?",
        "Where is the {kind} in the image?",
        "Which side is the {kind} on?",
        "Where can I find the {kind}?",
    ),
    "distance": (
        "How far is the {kind}?",
        "How near is the {kind}?",
    ),
    "count": (
        "How many {nouns}?",
        "How many {nouns} are in the picture?",
        "How many {nouns} are there in the image?",
        "What is the count of {nouns}?",
    ),
    "path": (
        "Is the road clear?",
        "Is the way free?",
        "Can I go straight ahead?",
    ),
    "signal": ("What is the color of the traffic light?", "Which color does the traffic light show?"),
    "identity": ("What's {place}?", "What is there {place}?", "What can you see {place}?"),
    "daylight": ("Is it day or is it dusk?", "Day or dusk?"),
    "description": (
        "What can you see?",
        "Describe the picture.",
        "Describe what you see.",
        "What is in this picture?",
        "What does the image show?",
    ),
}
"""Further phrasings, of nano's later stages: the tokenizer and the first stage know only QUESTIONS."""

PAIR_QUESTIONS: dict[str, tuple[str, ...]] = {
    "moved": (
        "Did the {kind} move?",
        "Has the {kind} moved?",
        "Did the {kind} change its place?",
        "Is the {kind} in another place now?",
        "Does the {kind} move?",
    ),
    "appeared": (
        "What appeared?",
        "What is new?",
        "What was added?",
        "What has appeared?",
        "What is new in the second image?",
        "Which object appeared?",
    ),
    "disappeared": (
        "What disappeared?",
        "What is gone?",
        "What was removed?",
        "What has disappeared?",
        "What is missing in the second image?",
        "Which object disappeared?",
    ),
    "changed": (
        "What changed?",
        "What has changed?",
        "What is different?",
        "What is the difference?",
        "What happened?",
        "What changed between the two images?",
        "What is the difference between the two images?",
    ),
    "any change": (
        "Did anything change?",
        "Has anything changed?",
        "Is anything different?",
        "Did something change?",
        "Is there any difference?",
    ),
}
"""Questions about two pictures, the earlier one first."""
