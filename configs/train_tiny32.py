# SPDX-License-Identifier: Apache-2.0
"""A tiny 32x32 generator (under 1 MB) for tests and tutorials, on the 2,000 'train' portraits of faces64.npz.

python -m stylegan_jax train --data faces64.npz --split train --output runs/tiny32 --config configs/train_tiny32.py
"""

from stylegan_jax.training.config import TrainConfig


def get_config(variant: str = "") -> TrainConfig:
    """Returns the settings; the variant "smoke" is a few steps of a tiny network."""
    if variant == "smoke":
        sizes = dict(resolution=8, channel_base=64, z_dim=8, w_dim=8)
        return TrainConfig(**sizes, batch=4, images=8, warm_start_images=4, decoding_weight=1.0, decoding_batch=2)
    return TrainConfig(
        resolution=32,
        widths=(48, 48, 32, 16),
        z_dim=32,
        w_dim=48,
        mapping_layers=2,
        images=120_000,
        batch=32,
        lr=0.002,
        r1_gamma=0.1,
        noise="none",
        style_mixing=0.5,
        ema_images=5_000,
        augment="ada",
        warm_start_images=12_800,
        decoding_weight=0.3,
        decoding_batch=16,
        snapshot_images=12_800,
    )
