# SPDX-License-Identifier: Apache-2.0
"""A job: a recording, questions, a model; and the journal of where it stands."""
