# SPDX-License-Identifier: Apache-2.0
"""The settings of a training run, as a typed dataclass."""

import dataclasses


@dataclasses.dataclass(unsafe_hash=True)  # flags change a config; a compiled step is found by its values
class TrainConfig:
    """Settings of StyleGAN2 training; counts of "images" are real images shown to the discriminator.

    Attributes:
        resolution: height and width of the generated images, a power of two.
        channel_base, channel_max: widths `min(channel_base / r, channel_max)`.
        widths: channels at 4, 8, ..., resolution; where given, they replace the rule above.
        z_dim, w_dim, mapping_layers: of the mapping network.
        conv_clamp: largest magnitude of activations, or 0 for none.
        images: length of the run.
        batch: images per step.
        lr: of both Adam optimisers (betas 0, 0.99), but for what follows.
        discriminator: "stylegan2", or "dcgan": strided convolutions with batch normalisation, several times as fast
            and on small data soon ahead. As a batch's own contrast is hidden from it, it wants `contrast_weight`.
        discriminator_widths: channels of the latter at 4, 8, ..., resolution / 2 (empty: those of the generator).
        discriminator_moments: "batch", or "stored": it normalises by moments taken once, of real images before the
            first step (those of an `initial` discriminator stay), so that it judges every image by itself.
        discriminator_first: images for which it learns alone, where it is new and the generator is not.
        discriminator_lr: rate of its optimiser (0: `lr`); discriminator_beta1: its first beta.
        range_weight: weight of the mean square by which generated values leave [-1, 1].
        contrast_weight: weight of the distance between generated and real images in mean and spread of colours.
        r1_gamma: weight of the R1 penalty; r1_interval: steps between two (lazy regularisation).
        path_weight: weight of path length regularisation (0: off); path_interval: steps between two.
        noise: "random", or "none": all strengths are 0 and stay so. Latents alone then decide an image, and a search
            meets no speckle that it cannot move.
        style_mixing: probability that a sample takes its later layers from a second latent.
        ema_images: half-life of the averaged generator in images; ema_rampup: its largest share of the images seen.
        x_flip: show mirrored images too.
        augment: "ada" (strength adapted to keep the sign of D at `augment_target`), "fixed" or "none".
        augment_p: first (or fixed) probability of each augmentation; augment_images: images from 0 to 1 in "ada".
        warm_start_images: images for which the generator first learns to decode whitened principal components.
        decoding_weight: weight of that decoding loss in the adversarial steps that follow (0: off); on small data it
            keeps every training image within reach of the latents.
        decoding_features: weight of the distance of the same images in the discriminator's features, which asks for
            likely detail where the decoding loss asks for its mean.
        decoding_batch: images of that loss in each step (0: `batch`).
        decoding_resolution: resolution at which the components are computed (0: `resolution`); a run that begins with
            a smaller model keeps that model's, so that the latents go on meaning the same images.
        encoder_widths: channels of an encoder at 4, 8, ..., resolution, which is trained along and reads the images
            that are to be decoded, in place of principal components; empty for none. It lets the generator learn
            detail that components do not hold.
        encoder_prior: weight of the distance of its latents from the mean of W, in units of W's spread.
        bfloat16_from: blocks of at least this resolution compute in bfloat16 (0: none).
        snapshot_images: images between two snapshots (state, model and sample sheet).
        seed: of everything random.
    """

    resolution: int = 64
    channel_base: int = 4096
    channel_max: int = 128
    widths: tuple[int, ...] = ()
    z_dim: int = 128
    w_dim: int = 128
    mapping_layers: int = 4
    conv_clamp: float = 256.0
    images: int = 1_000_000
    batch: int = 32
    lr: float = 0.002
    discriminator: str = "stylegan2"
    discriminator_widths: tuple[int, ...] = ()
    discriminator_moments: str = "batch"
    discriminator_first: int = 0
    discriminator_lr: float = 0.0
    discriminator_beta1: float = 0.0
    range_weight: float = 0.0
    contrast_weight: float = 0.0
    r1_gamma: float = 0.1
    r1_interval: int = 16
    path_weight: float = 0.0
    path_interval: int = 4
    noise: str = "random"
    style_mixing: float = 0.9
    ema_images: float = 10_000.0
    ema_rampup: float = 0.05
    x_flip: bool = True
    augment: str = "ada"
    augment_p: float = 0.0
    augment_target: float = 0.6
    augment_images: float = 100_000.0
    warm_start_images: int = 0
    decoding_weight: float = 0.0
    decoding_features: float = 0.0
    decoding_batch: int = 0
    decoding_resolution: int = 0
    encoder_widths: tuple[int, ...] = ()
    encoder_prior: float = 0.01
    bfloat16_from: int = 0
    snapshot_images: int = 20_000
    seed: int = 0
