# SPDX-License-Identifier: Apache-2.0
"""Operators of the networks: pure functions over NHWC batches `[n, h, w, c]`; weights are `[kh, kw, in, out]`."""
