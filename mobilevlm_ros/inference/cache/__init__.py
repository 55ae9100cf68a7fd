# SPDX-License-Identifier: Apache-2.0
"""What is kept between questions: prefixes, sessions; and the prefill that uses them."""
