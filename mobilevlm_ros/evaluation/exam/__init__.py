# SPDX-License-Identifier: Apache-2.0
"""Your own robot's exam: pictures and questions of yours, scored with how sure the model was."""
