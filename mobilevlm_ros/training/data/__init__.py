# SPDX-License-Identifier: Apache-2.0
"""What training reads: conversations and pictures, label masks, batches, samplers, token shards."""
