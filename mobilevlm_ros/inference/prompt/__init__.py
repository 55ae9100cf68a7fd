# SPDX-License-Identifier: Apache-2.0
"""What a prompt is made of: conversation, pictures, presets."""
