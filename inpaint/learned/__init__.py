# SPDX-License-Identifier: Apache-2.0
"""Networks trained to restore, on a frozen generator."""
