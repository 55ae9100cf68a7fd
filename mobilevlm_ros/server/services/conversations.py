# SPDX-License-Identifier: Apache-2.0
"""Conversations whose history the client keeps and sends each time: what was read of them stays in the KV
cache.
"""

from __future__ import annotations

import hashlib

from mobilevlm_ros.inference.cache.sessions import Session, SessionStore
from mobilevlm_ros.inference.prompt.conversation import Turn
from mobilevlm_ros.server.services.service import Question


def session_of(question: Question, store: SessionStore) -> Session | None:
    """The session that a question continues; None for a first question, which needs none.

    A named session is the store's. A history belongs to the session that began with the same question about
    the same pictures: where that one's turns are the history, its KV is used; where not (an answer was
    edited, or asked for again), the history is read anew. Runs on the inference thread.
    """
    if question.session:
        return store.get(f"named/{question.session}")
    if not question.history:
        return None
    name = f"history/{_digest(question)}"
    session = store.get(name)
    if session.busy:
        session = Session(token_budget=session.token_budget)
    elif session.turns and session.turns != question.history:
        session = store.get(name, reset=True)
    if not session.turns:
        session.turns = question.history
        session.answered = len(question.history)
    return session


def _digest(question: Question) -> str:
    """What a conversation keeps from its first question to its last."""
    digest = hashlib.blake2b(digest_size=16)
    request = question.request
    first: Turn = question.history[0]
    parts = (
        question.camera,
        request.system_prompt,
        repr(request.region),
        str(request.region_with_frame),
        first.question,
    )
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    for picture in question.pictures:
        digest.update(hashlib.blake2b(picture.data, digest_size=16).digest())
    return digest.hexdigest()
