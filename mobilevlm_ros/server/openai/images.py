# SPDX-License-Identifier: Apache-2.0
"""The bytes of the pictures in a request."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from mobilevlm_ros.server.api_error import ApiError

_HEAD = re.compile(r"data:(image/[\w.+-]+)?(;[\w-]+=[\w.-]+)*(;base64)?,", re.IGNORECASE)


def image_bytes(url: str, param: str) -> bytes:
    """The bytes of an image_url. Only data: URIs hold them; nothing is fetched.

    Raises ApiError: another kind of URL, or data that is not base64.
    """
    found = _HEAD.match(url[:200])
    if found is None:
        scheme = url.partition(":")[0][:20] if ":" in url[:20] else ""
        if scheme.lower() in ("http", "https", "ftp", "file"):
            raise ApiError(
                400,
                f"{param} is a {scheme}: URL, and this server fetches nothing: send the picture itself, as "
                "data:image/jpeg;base64,...",
                "remote_image_refused",
                param,
            )
        raise ApiError(
            400, f"{param} is no data URI: send data:image/jpeg;base64,...", "invalid_image_url", param
        )
    payload = url[found.end() :]
    if not found.group(3):
        return unquote_to_bytes(payload)
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):  # line breaks, the URL alphabet, or no padding
        payload = payload.translate(_TO_STANDARD)
    try:
        return base64.b64decode(payload + "=" * (-len(payload) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(
            400,
            f"{param} does not hold base64 after the comma: encode the file again",
            "invalid_image",
            param,
        ) from None


_TO_STANDARD = str.maketrans({"-": "+", "_": "/", "\n": None, "\r": None, " ": None})
