# SPDX-License-Identifier: Apache-2.0
"""Images to pixels, conversations to token ids: numpy, OpenCV and SentencePiece only."""
