# SPDX-License-Identifier: Apache-2.0
"""The shipped DCGAN at 64x64, trained on the 2,000 'train' portraits of faces64.npz (docs/demo_model.md).

python -m stylegan_jax train --data faces64.npz --split train --output runs/dcgan64 --config configs/train_dcgan64.py
"""

from stylegan_jax.training.dcgan import DcganTrainConfig


def get_config(variant: str = "") -> DcganTrainConfig:
    """Returns the settings; the variant "smoke" is a few steps of a tiny network."""
    if variant == "smoke":
        return DcganTrainConfig(
            resolution=8,
            generator_widths=(6,),
            discriminator_widths=(6,),
            z_dim=8,
            batch=4,
            images=8,
            augment_p=0.5,
            ema_images=8.0,
        )
    return DcganTrainConfig(
        resolution=64,
        generator_widths=(128, 64, 32, 16),
        discriminator_widths=(128, 64, 32, 16),
        images=160_000,
        batch=32,
        lr=5e-4,
        augment_p=0.5,
        ema_images=5_000,
        snapshot_images=20_000,
    )
