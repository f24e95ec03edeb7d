# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2 training (Karras et al. 2020) as pure steps over a state.

Images are `[n, h, w, c]` in about [-1, 1]. The discriminator is that of StyleGAN2, or a DCGAN's. Where
the latter normalises by its batch, real and generated images are batches of their own, and its running moments are part
of the state.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from stylegan_jax import checkpoint, dcgan, latents, parameters, stylegan2
from stylegan_jax.encoders import MaskedEncoder, MaskedEncoderConfig
from stylegan_jax.training import augment, losses, warm_start
from stylegan_jax.training.config import TrainConfig

MOMENTS_SHARE = 0.1  # of a batch in the running moments of a DCGAN's discriminator


class State(NamedTuple):
    """Everything that changes in training; parameters are NNX states."""

    generator: Any
    discriminator: Any
    average: Any
    generator_optimizer: Any
    discriminator_optimizer: Any
    images: Array  # real images shown so far, without the warm start
    warm_images: Array
    augment_p: Array
    path_mean: Array
    encoder: Any = None
    encoder_optimizer: Any = None
    discriminator_moments: Any = None  # of a DCGAN's discriminator


class Networks(NamedTuple):
    """The static side: graph definitions and buffers."""

    generator: Any
    generator_buffers: Any
    discriminator: Any
    discriminator_buffers: Any
    encoder: Any = None
    encoder_buffers: Any = None

    def generate(self, parameters: Any) -> stylegan2.Generator:
        """Returns the generator with `parameters`."""
        return nnx.merge(self.generator, parameters, self.generator_buffers)

    def discriminate(self, state: State, *, parameters: Any = None) -> stylegan2.Discriminator | dcgan.Discriminator:
        """Returns the discriminator of a state, with other `parameters` where they are given."""
        buffers = self.discriminator_buffers if state.discriminator_moments is None else state.discriminator_moments
        return nnx.merge(self.discriminator, state.discriminator if parameters is None else parameters, buffers)

    def encode(self, parameters: Any) -> MaskedEncoder:
        """Returns the encoder with `parameters`."""
        return nnx.merge(self.encoder, parameters, self.encoder_buffers)


def _widths(config: TrainConfig) -> tuple[int, ...]:
    widths = tuple(config.widths) or stylegan2.channel_widths(
        config.resolution, channel_base=config.channel_base, channel_max=config.channel_max
    )
    if 2 << len(widths) != config.resolution:
        raise ValueError(f"{len(widths)} widths make images of {2 << len(widths)} px, not {config.resolution}")
    return widths


def _new_generator(config: TrainConfig, shared: dict[str, Any]) -> stylegan2.Generator:
    sizes = dict(z_dim=config.z_dim, w_dim=config.w_dim, mapping_layers=config.mapping_layers)
    return stylegan2.Generator(stylegan2.GeneratorConfig(**sizes, **shared), rngs=nnx.Rngs(config.seed))


def _new_discriminator(config: TrainConfig, shared: dict[str, Any]) -> stylegan2.Discriminator | dcgan.Discriminator:
    rngs = nnx.Rngs(config.seed + 1)
    if config.discriminator_moments not in ("batch", "stored"):
        raise ValueError(f'discriminator_moments must be "batch" or "stored", got {config.discriminator_moments!r}')
    if config.discriminator == "stylegan2":
        if config.discriminator_moments == "stored":
            raise ValueError("discriminator_moments are those of a DCGAN's discriminator; that of StyleGAN2 has none")
        return stylegan2.Discriminator(stylegan2.DiscriminatorConfig(**shared), rngs=rngs)
    if config.discriminator != "dcgan":
        raise ValueError(f'discriminator must be "stylegan2" or "dcgan", got {config.discriminator!r}')
    if config.decoding_features:
        raise ValueError("decoding_features needs the discriminator of StyleGAN2, whose features know no batch")
    widths = tuple(config.discriminator_widths) or shared["widths"][:-1]
    found = dcgan.DiscriminatorConfig(widths=widths, image_channels=shared["image_channels"])
    if found.resolution != config.resolution:
        raise ValueError(f"{len(widths)} discriminator_widths are for {found.resolution} px, not {config.resolution}")
    return dcgan.Discriminator(found, rngs=rngs)


def _generator_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    return optax.adam(config.lr, b1=0.0, b2=0.99, eps=1e-8)


def _discriminator_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    return optax.adam(config.discriminator_lr or config.lr, b1=config.discriminator_beta1, b2=0.99, eps=1e-8)


def create(
    config: TrainConfig, *, channels: int, initial: checkpoint.Model | None = None, real: Array | None = None
) -> tuple[Networks, State]:
    """Returns networks and state for images of `channels` channels.

    They are freshly initialised, but for what they share with the networks of `initial`, a model of lower or equal
    resolution. A new discriminator whose moments are stored takes them from the images `real` `[n, h, w, c]`.

    Raises:
        ValueError: for settings that make no network.
    """
    shared = dict(
        widths=_widths(config),
        image_channels=channels,
        conv_clamp=config.conv_clamp or None,
        bfloat16_from=config.bfloat16_from or None,
    )
    generator, discriminator = _new_generator(config, shared), _new_discriminator(config, shared)
    if initial is not None:
        generator = _begin_with(generator, initial.generator)
        if _continues(discriminator, initial.discriminator):
            discriminator = _begin_with(discriminator, initial.discriminator)
    if config.noise not in ("random", "none"):
        raise ValueError(f'noise must be "random" or "none", got {config.noise!r}')
    if config.noise == "none":
        generator = _without_noise(generator)
    given = initial is not None and _continues(discriminator, initial.discriminator)
    if config.discriminator_moments == "stored" and real is not None and not given:
        discriminator = dcgan.with_moments(discriminator, discriminator.forward_batch(real)[1])
    g_graph, g_params, g_buffers = nnx.split(generator, nnx.Param, ...)
    d_graph, d_params, d_buffers = nnx.split(discriminator, nnx.Param, ...)
    batched = isinstance(discriminator, dcgan.Discriminator)
    e_graph, e_params, e_buffers = None, None, None
    if config.encoder_widths:
        e_graph, e_params, e_buffers = nnx.split(_new_encoder(config, generator, initial), nnx.Param, ...)
    state = State(
        generator=g_params,
        discriminator=d_params,
        average=jax.tree.map(jnp.copy, g_params),
        generator_optimizer=_generator_optimizer(config).init(g_params),
        discriminator_optimizer=_discriminator_optimizer(config).init(d_params),
        images=jnp.zeros((), jnp.int32),
        warm_images=jnp.zeros((), jnp.int32),
        augment_p=jnp.asarray(config.augment_p if config.augment != "none" else 0.0, jnp.float32),
        path_mean=jnp.zeros((), jnp.float32),
        encoder=e_params,
        encoder_optimizer=None if e_params is None else _generator_optimizer(config).init(e_params),
        discriminator_moments=d_buffers if batched else None,
    )
    return Networks(g_graph, g_buffers, d_graph, None if batched else d_buffers, e_graph, e_buffers), state


def _new_encoder(config: TrainConfig, generator: stylegan2.Generator, initial: checkpoint.Model | None):
    encoder = MaskedEncoder(
        MaskedEncoderConfig(
            widths=tuple(config.encoder_widths),
            image_channels=generator.config.image_channels,
            num_ws=generator.config.num_ws,
            w_dim=config.w_dim,
        ),
        rngs=nnx.Rngs(config.seed + 2),
    )
    if encoder.resolution != config.resolution:
        raise ValueError(f"encoder_widths are for images of {encoder.resolution} px, not {config.resolution}")
    known = None if initial is None else initial.w_statistics
    statistics = known or latents.estimate_w_statistics(jax.random.key(0), generator)
    encoder.mean[...] = statistics.mean
    encoder.scale[...] = jnp.sqrt(jnp.diag(statistics.covariance))
    return encoder


def _without_noise(generator: stylegan2.Generator) -> stylegan2.Generator:
    arrays = parameters.to_arrays(generator)
    silent = {name: jnp.zeros_like(x) for name, x in arrays.items() if name.endswith("/noise_strength")}
    return parameters.fill(stylegan2.Generator, generator.config, arrays | silent)


def _continues(network: nnx.Module, earlier: nnx.Module | None) -> bool:
    # A DCGAN's discriminator does not grow: of another size, its moments would fit no layer.
    grows = isinstance(network, stylegan2.Discriminator)
    return type(earlier) is type(network) and (grows or earlier.config == network.config)


def _begin_with(network: nnx.Module, smaller: nnx.Module) -> nnx.Module:
    """Returns `network` with the arrays of `smaller` wherever name and shape agree; new layers to RGB begin at 0.

    With skip connections the result then first makes the enlarged images of the smaller network.
    """
    arrays, given = parameters.to_arrays(network), parameters.to_arrays(smaller)
    for name, array in arrays.items():
        if name in given and given[name].shape == array.shape:
            arrays[name] = given[name]
        elif "/torgb/" in name and not name.endswith(("affine/weight", "affine/bias")):
            arrays[name] = jnp.zeros_like(array)
    return parameters.fill(type(network), network.config, arrays)


def _mixed_ws(key: Array, generator: stylegan2.Generator, n: int, probability: float) -> Array:
    """Returns `ws` of `n` random latents, some crossing over to a second latent at a random layer."""
    config = generator.config
    first, second, where, choose = jax.random.split(key, 4)
    ws = generator.map(jax.random.normal(first, (n, config.z_dim)))
    if probability == 0:
        return ws
    other = generator.map(jax.random.normal(second, (n, config.z_dim)))
    cut = jax.random.randint(where, (n,), 1, config.num_ws)
    cut = jnp.where(jax.random.uniform(choose, (n,)) < probability, cut, config.num_ws)
    return jnp.where((jnp.arange(config.num_ws)[None, :] < cut[:, None])[..., None], ws, other)


def _generate(keys: Array, generator: stylegan2.Generator, n: int, config: TrainConfig) -> Array:
    """Returns `n` images; `keys` are of their latents and of their noise."""
    ws = _mixed_ws(keys[0], generator, n, config.style_mixing)
    return generator.synthesis(ws, noise="none" if config.noise == "none" else keys[1])


def averaged(config: TrainConfig, average: Any, current: Any, images: Array) -> Any:
    """Returns parameters `average` after `current` joined them: what lies `ema_images` back counts half as much.

    Args:
        config: settings.
        average, current: pytrees of arrays, alike.
        images: seen so far (a scalar); while they are few, the half-life is `ema_rampup` times their number.
    """
    half_life = jnp.minimum(config.ema_images, jnp.maximum(images * config.ema_rampup, 1.0))
    beta = 0.5 ** (config.batch / half_life)
    return jax.tree.map(lambda a, b: b + (a - b) * beta, average, current)


def _logits(
    discriminator: stylegan2.Discriminator | dcgan.Discriminator, images: Array, config: TrainConfig
) -> tuple[Array, dict[str, dcgan.Moments] | None]:
    """Returns logits `[n]` and, of a discriminator that normalises by its batch, the moments of this one."""
    if isinstance(discriminator, dcgan.Discriminator) and config.discriminator_moments == "batch":
        return discriminator.forward_batch(images)
    return discriminator(images), None


def discriminator_step(
    key: Array, networks: Networks, state: State, real: Array, *, config: TrainConfig, penalise: bool
) -> tuple[State, dict[str, Array]]:
    """Returns the state after one step of the discriminator, with R1 where `penalise`, and its statistics.

    Args:
        key: of latents, noise and augmentation.
        networks: static side.
        state: before.
        real: `[n, h, w, c]` in [-1, 1].
        config: settings.
        penalise: add the lazy R1 penalty, times its interval.
    """
    keys = jax.random.split(key, 4)
    generator = networks.generate(state.generator)
    fake = _generate(keys[:2], generator, real.shape[0], config)
    real = augment.augment(keys[2], real, state.augment_p) if config.augment != "none" else real
    fake = augment.augment(keys[3], fake, state.augment_p) if config.augment != "none" else fake

    def loss(parameters: Any) -> tuple[Array, tuple[dict[str, Array], Any]]:
        discriminator = networks.discriminate(state, parameters=parameters)
        (real_logits, of_real), (fake_logits, of_fake) = (_logits(discriminator, x, config) for x in (real, fake))
        value = losses.discriminator_logistic(real_logits, fake_logits)
        statistics = {"d_loss": value, "d_real": real_logits.mean(), "d_fake": fake_logits.mean()}
        statistics["d_sign"] = jnp.sign(real_logits).mean()
        if penalise:
            penalty = losses.r1_penalty(lambda images: _logits(discriminator, images, config)[0], real)
            statistics["r1"] = penalty
            value = value + config.r1_gamma * config.r1_interval * penalty
        if of_real is None:
            return value, (statistics, state.discriminator_moments)
        moved = dcgan.with_moments(discriminator, dcgan.joined([of_real, of_fake]), share=MOMENTS_SHARE)
        return value, (statistics, nnx.split(moved, nnx.Param, ...)[2])

    gradient, (statistics, moments) = jax.grad(loss, has_aux=True)(state.discriminator)
    updates, optimizer = _discriminator_optimizer(config).update(gradient, state.discriminator_optimizer)
    p = state.augment_p
    if config.augment == "ada":
        p = jnp.clip(
            p + jnp.sign(statistics["d_sign"] - config.augment_target) * config.batch / config.augment_images, 0, 1
        )
    state = state._replace(
        discriminator=optax.apply_updates(state.discriminator, updates),
        discriminator_optimizer=optimizer,
        discriminator_moments=moments,
        images=state.images + real.shape[0],
        augment_p=p,
    )
    return state, statistics


def generator_step(
    key: Array,
    networks: Networks,
    state: State,
    decoded: tuple[Array, Array] | None,
    *,
    real: Array | None = None,
    config: TrainConfig,
    penalise: bool,
) -> tuple[State, dict[str, Array]]:
    """Returns the state after one step of the generator (with its encoder, if any) and of its average, and statistics.

    Args:
        key: of latents, noise and augmentation.
        networks: static side.
        state: before.
        decoded: components `[n, z_dim]` and their images `[n, h, w, c]` for the decoding loss, or None; an encoder
            reads the images and has no use for the components.
        real: `[m, h, w, c]`, whose contrast is matched where `contrast_weight` is above 0.
        config: settings.
        penalise: add path length regularisation, times its interval.
    """
    keys = jax.random.split(key, 6)

    def loss(parameters: tuple[Any, Any]) -> tuple[Array, tuple[dict[str, Array], Array]]:
        generator = networks.generate(parameters[0])
        fake = _generate(keys[:2], generator, config.batch, config)
        seen = augment.augment(keys[2], fake, state.augment_p) if config.augment != "none" else fake
        value = losses.generator_logistic(_logits(networks.discriminate(state), seen, config)[0])
        statistics, path_mean = {"g_loss": value}, state.path_mean
        if config.range_weight:
            statistics["beyond_range"] = losses.beyond_range(fake)
            value = value + config.range_weight * statistics["beyond_range"]
        if config.contrast_weight:
            statistics["contrast"] = losses.contrast_distance(fake, real)
            value = value + config.contrast_weight * statistics["contrast"]
        if penalise:
            ws = _mixed_ws(keys[3], generator, max(config.batch // 2, 1), config.style_mixing)
            lengths = losses.path_lengths(keys[4], lambda ws: generator.synthesis(ws, noise="none"), ws)
            path_mean = path_mean + 0.01 * (lengths.mean() - path_mean)
            penalty = jnp.mean(jnp.square(lengths - jax.lax.stop_gradient(path_mean)))
            value = value + config.path_weight * config.path_interval * penalty
            statistics["path_length"] = lengths.mean()
        if decoded is not None:
            own, more = decoding(keys[5], networks, state, parameters, decoded, config=config)
            value, statistics = value + own, statistics | more
        return value, (statistics, path_mean)

    gradient, (statistics, path_mean) = jax.grad(loss, has_aux=True)((state.generator, state.encoder))
    return _updated(state, gradient, state.images, config=config)._replace(path_mean=path_mean), statistics


def decoding(
    key: Array, networks: Networks, state: State, parameters: tuple[Any, Any], decoded: tuple, *, config: TrainConfig
) -> tuple[Array, dict[str, Array]]:
    """Returns the weighted loss of rendering real images from what is known of them, and its parts."""
    generator, (components, real) = networks.generate(parameters[0]), decoded
    found = {}
    if networks.encoder is None:
        fake = generator(warm_start.blurred(key, components), noise="none")
    else:
        encoder = networks.encode(parameters[1])
        ws = encoder(real, jnp.ones(real.shape[:3], real.dtype))
        fake = generator.synthesis(ws, noise="none")
        found["prior"] = jnp.mean(jnp.square((ws - encoder.mean[...][None, None]) / encoder.scale[...][None, None]))
    found["decoding_loss"] = warm_start.pixel_distance(fake, real)
    if config.decoding_features:
        discriminator = networks.discriminate(state)
        found["decoding_features"] = losses.feature_distance(discriminator, fake, real)
    weights = {
        "prior": config.encoder_prior,
        "decoding_loss": config.decoding_weight,
        "decoding_features": config.decoding_features,
    }
    return sum(weights[name] * value for name, value in found.items()), found


def _updated(state: State, gradient: tuple[Any, Any], images: Array, *, config: TrainConfig) -> State:
    """Returns the state with generator, average and encoder one step further; `images` were seen before."""
    updates, optimizer = _generator_optimizer(config).update(gradient[0], state.generator_optimizer)
    parameters = optax.apply_updates(state.generator, updates)
    average = averaged(config, state.average, parameters, images)
    state = state._replace(generator=parameters, generator_optimizer=optimizer, average=average)
    if state.encoder is None:
        return state
    updates, optimizer = _generator_optimizer(config).update(gradient[1], state.encoder_optimizer)
    return state._replace(encoder=optax.apply_updates(state.encoder, updates), encoder_optimizer=optimizer)


def warm_step(
    key: Array, networks: Networks, state: State, components: Array, real: Array, *, config: TrainConfig
) -> tuple[State, dict[str, Array]]:
    """Returns the state after one step of decoding `components` `[n, z_dim]` (or what an encoder sees of `real`) to
    `real` `[n, h, w, c]`, by the losses that accompany the game."""
    # A run that decodes in the warm start only still needs a loss there.
    config = dataclasses.replace(config, decoding_weight=config.decoding_weight or 1.0)

    def loss(parameters: tuple[Any, Any]) -> tuple[Array, dict[str, Array]]:
        return decoding(key, networks, state, parameters, (components, real), config=config)

    gradient, statistics = jax.grad(loss, has_aux=True)((state.generator, state.encoder))
    state = _updated(state, gradient, state.warm_images, config=config)
    return state._replace(warm_images=state.warm_images + real.shape[0]), statistics
