# SPDX-License-Identifier: Apache-2.0
"""`make demo`: a simulated camera, the node and a client, and answers held against the truth."""
