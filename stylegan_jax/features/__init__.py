# SPDX-License-Identifier: Apache-2.0
"""Networks whose features compare images."""

from stylegan_jax.features.judge import Judge, JudgeConfig, Judgement, feature_distance

__all__ = ["Judge", "JudgeConfig", "Judgement", "feature_distance"]
