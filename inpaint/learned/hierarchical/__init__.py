# SPDX-License-Identifier: Apache-2.0
"""Hierarchical encoding for inpainting (Dündar 2024) and its base DivInversion (Yildirim et al. 2023)."""
