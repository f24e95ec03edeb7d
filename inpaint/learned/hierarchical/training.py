# SPDX-License-Identifier: Apache-2.0
"""Training of a hierarchical inpainter in two passes over each image, as pure steps over a state.

The same z that made an image must give all of it again; for another z only the known pixels count. The generator is
frozen; the discriminator is trained along.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

import stylegan_jax as sg
from inpaint.learned.hierarchical import losses
from inpaint.learned.hierarchical.config import HierarchicalConfig
from inpaint.learned.hierarchical.network import HierarchicalInpainter
from stylegan_jax.features import vgg
from stylegan_jax.training import losses as training_losses


@dataclasses.dataclass
class HierarchicalTrainConfig:
    """Settings of the training; counts of "images" are images seen by the encoder.

    Names up to `noise` are those of the network, see `HierarchicalConfig`; 0 stands for what follows from the
    generator. What the paper leaves open is marked "open".

    Attributes:
        images: length of the run; batch: images per step. Open.
        generated: how many of a batch are the generator's own samples; published: all. Real ones know no z that makes
            them, so they take part in the second pass only.
        lr: largest learning rate of Adam, under a cosine to 0; beta1, beta2: of it. Open.
        discriminator_lr: of the discriminator. Open.
        masks: generators of masks with their area bands, see `TrainingMasks`. Open: "masks of varying sizes".
        pixel: weight of pixel distances within the losses of both passes; features: of feature distances. Open:
            printed without weights.
        same, other: weights of the losses of the first and second pass, published lambda_rg and lambda_rr.
        adversarial: weight of the game, published lambda_a.
        distance: "squared" or "norm", see `losses.distance`. Open.
        vgg: checkpoint of a VGG whose features are compared; none: those of the generator's discriminator as it was.
        vgg_taps: its maps. Open.
        real: what the discriminator takes for real: "generated" (printed: I_g), or "all" (real images too).
        adversarial_interval: the game is played in every so many steps, with as much more weight; 1 as published.
        adversarial_from: images after which it begins.
        r1_gamma: weight of R1 on the discriminator; r1_interval: games between two of its steps. Open: as StyleGAN2
            was trained.
        bfloat16: whether trunk and large blocks compute in it: "auto" (on accelerators), "yes" or "no".
        warm_images: images by which encoder and mixing networks learn latents alone first, see `warm_step`: a start for
            small budgets that the paper does not have. It needs `start` "encoder".
        ema_images: half-life of the averaged weights in images, less while few were seen.
        x_flip: show mirrored real images too.
        half: store the network in half precision.
        snapshot_images: images between two snapshots.
        seed: of everything random.
    """

    backbone: str = "psp"
    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (3, 4, 14, 3)
    stem: int = 64
    reduction: int = 16
    heads: str = "convolutional"
    head_width: int = 0
    code_dim: int = 0
    context: str = "previous"
    hidden: int = 0
    start: str = "mean"
    stages: str = "single"
    skip_widths: tuple[int, ...] = (512, 512, 512)
    skip_from: str = "generator"
    second_widths: tuple[int, ...] = (128, 64, 32)
    noise: str = "const"
    images: int = 2_000_000
    batch: int = 8
    generated: int = 8
    lr: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.99
    discriminator_lr: float = 1e-4
    masks: tuple[str, ...] = ("brush:0-1",)
    pixel: float = 1.0
    features: float = 1.0
    same: float = 1.0
    other: float = 1.0
    adversarial: float = 0.08
    distance: str = "squared"
    vgg: str = ""
    vgg_taps: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    real: str = "generated"
    adversarial_interval: int = 1
    adversarial_from: int = 0
    r1_gamma: float = 1.0
    r1_interval: int = 16
    bfloat16: str = "auto"
    warm_images: int = 0
    ema_images: float = 10_000.0
    x_flip: bool = True
    half: bool = True
    snapshot_images: int = 20_000
    seed: int = 0

    def network(self, generator: Any) -> HierarchicalConfig:
        """Returns the settings of the network for a generator of settings `generator`."""
        names = {field.name for field in dataclasses.fields(HierarchicalConfig)}
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name in names}
        lists = {name: tuple(value) for name, value in own.items() if isinstance(value, tuple | list)}
        return HierarchicalConfig.for_generator(generator, own | lists)


class State(NamedTuple):
    """Everything that changes in training."""

    parameters: Any
    average: Any
    optimizer: Any
    discriminator: Any
    discriminator_optimizer: Any
    images: Array


class Frozen(NamedTuple):
    """Arrays of what does not change: generator, guide, buffers, and the network of features."""

    generator: Any
    buffers: Any
    discriminator_buffers: Any
    features: Any


class Graphs(NamedTuple):
    """The static side of all networks."""

    generator: Any
    inpainter: Any
    discriminator: Any
    features: Any


class Batch(NamedTuple):
    """Real images `[m, h, w, c]`, and the masks `[n + m, h, w]` of n generated and these."""

    real: Array
    known: Array


class Networks(NamedTuple):
    """All networks of a step, merged."""

    generator: sg.Generator
    inpainter: HierarchicalInpainter
    maps: losses.Maps


def optimizers(
    config: HierarchicalTrainConfig,
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """Returns those of the inpainter and of the discriminator."""
    schedule = optax.cosine_decay_schedule(config.lr, -(-config.images // config.batch))
    return (
        optax.adam(schedule, b1=config.beta1, b2=config.beta2),
        optax.adam(config.discriminator_lr, b1=0.0, b2=0.99, eps=1e-8),
    )


def feature_maps(network: nnx.Module, taps: tuple[str, ...]) -> losses.Maps:
    """Returns the function from images `[n, h, w, c]` to maps: of a VGG, by its `taps`, or of a discriminator."""
    if isinstance(network, vgg.Vgg):
        return lambda images: network(vgg.imagenet(images), taps)
    return lambda images: network.forward(images)[1]


def passes(
    networks: Networks, images: Array, known: Array, ws: Array, rand: Array, *, config: HierarchicalTrainConfig
) -> tuple[Array, dict[str, Array], tuple[Array, Array]]:
    """Returns the reconstruction losses of both passes, their parts, and the composites of both.

    `L_rg = |I_g^o - I_g| + sum_j |phi_j(I_g^o) - phi_j(I_g)|`, `L_rr = |M I_r^o - I_r^e| + sum_j |phi_j(M I_r^o) -
    phi_j(I_r^e)|`.

    Args:
        networks: merged.
        images: `[n + m, h, w, c]`, generated ones first.
        known: `[n + m, h, w]`.
        ws: `[n, num_ws, w_dim]`, the styles of the generated ones.
        rand: `[n + m, num_ws, w_dim]`, styles of other z.
        config: weights.
    """
    inpainter, n = networks.inpainter, len(ws)
    low = jnp.bfloat16 if config.bfloat16 == "yes" else images.dtype
    seen = inpainter.see(images, known, dtype=low)
    # Both passes see the same: the encoder runs once.
    twice = jax.tree.map(lambda x: jnp.concatenate([x[:n], x]), (seen, images, known))
    styles = inpainter.styles(twice[0], jnp.concatenate([ws, rand]))
    made = inpainter.render(networks.generator, styles, *twice).images
    same, other, mask = made[:n], made[n:], known[..., None]
    parts = {
        "same_pixel": losses.distance(same, images[:n], kind=config.distance),
        "other_pixel": losses.distance(mask * other, mask * images, kind=config.distance),
    }
    if config.features:
        compare = {"same": (same, images[:n]), "other": (mask * other, mask * images)}
        for name, pair in compare.items():
            parts[f"{name}_features"] = losses.feature_distance(networks.maps, *pair, kind=config.distance)
    total = jnp.zeros((), made.dtype)
    for name, weight in (("same", config.same), ("other", config.other)):
        total += weight * config.pixel * parts[f"{name}_pixel"]
        total += weight * config.features * parts.get(f"{name}_features", 0.0)
    fused = losses.composite(same, images[:n], known[:n]), losses.composite(other, images, known)
    return total, parts, fused


def step(
    key: Array,
    state: State,
    frozen: Frozen,
    batch: Batch,
    *,
    graphs: Graphs,
    config: HierarchicalTrainConfig,
    plays: bool,
    penalises: bool,
) -> tuple[State, dict[str, Array]]:
    """Returns the state after one step, and its statistics, scalars by name.

    Args:
        key: of both z.
        state: before.
        frozen: arrays of the other networks.
        batch: real images and masks.
        graphs: the static side.
        config: settings.
        plays: whether the game is played.
        penalises: whether the discriminator gets R1, too.
    """
    generator = nnx.merge(graphs.generator, frozen.generator)
    maps = feature_maps(nnx.merge(graphs.features, frozen.features), tuple(config.vgg_taps))
    ws, rand, generated = _drawn(key, generator, batch, config)
    images = jnp.concatenate([generated, batch.real])

    def objective(parameters: Any) -> tuple[Array, tuple[dict[str, Array], tuple[Array, Array]]]:
        networks = Networks(generator, nnx.merge(graphs.inpainter, parameters, frozen.buffers), maps)
        value, parts, fused = passes(networks, images, batch.known, ws, rand, config=config)
        if plays:
            judge = _judge(graphs, frozen, state.discriminator)
            parts["game"] = losses.inpainter_loss(*(judge(x) for x in fused))
            value += config.adversarial * config.adversarial_interval * parts["game"]
        return value, (parts, fused)

    gradient, (parts, fused) = jax.grad(objective, has_aux=True)(state.parameters)
    optimizer, discriminator_optimizer = optimizers(config)
    updates, moved = optimizer.update(gradient, state.optimizer)
    parameters = optax.apply_updates(state.parameters, updates)
    state = state._replace(parameters=parameters, average=_averaged(state, parameters, config), optimizer=moved)
    if plays:
        real = images if config.real == "all" else generated
        gradient, more = _discriminator_gradient(graphs, frozen, state, real, fused, config, penalises=penalises)
        updates, moved = discriminator_optimizer.update(gradient, state.discriminator_optimizer)
        discriminator = optax.apply_updates(state.discriminator, updates)
        state, parts = state._replace(discriminator=discriminator, discriminator_optimizer=moved), parts | more
    return state._replace(images=state.images + config.batch), parts


def _drawn(
    key: Array, generator: sg.Generator, batch: Batch, config: HierarchicalTrainConfig
) -> tuple[Array, Array, Array]:
    """Returns styles of generated images, styles of other z for all images, and the generated images."""
    own, others = jax.random.split(key)
    z_dim, count = generator.config.z_dim, batch.known.shape[0]
    ws = generator.map(jax.random.normal(own, (count - batch.real.shape[0], z_dim)))
    rand = generator.map(jax.random.normal(others, (count, z_dim)))
    return ws, rand, generator.synthesis(ws, noise=config.noise)


def _averaged(state: State, parameters: Any, config: HierarchicalTrainConfig) -> Any:
    keep = 0.5 ** (config.batch / jnp.clip(0.1 * state.images, 1.0, config.ema_images))
    return jax.tree.map(lambda a, b: b + (a - b) * keep, state.average, parameters)


def warm_step(
    key: Array, state: State, frozen: Frozen, batch: Batch, *, graphs: Graphs, config: HierarchicalTrainConfig
) -> tuple[State, dict[str, Array]]:
    """Returns the state after a step in which encoder and mixing networks learn latents alone, and its statistics.

    With the generator's own encoder E, what it says of an image x and of G(w_rand), both behind the mask M, the styles
    wanted are `E(M x) + w_rand - E(M G(w_rand))`: what E knows of x, and of w_rand what M hides from E. Were images and
    latents jointly normal and E their regression, these would be samples of the latents given the known pixels
    (conditioning by kriging, Journel and Huijbregts 1978); with the z that made x they are its own latents.

    Args:
        key: of both z.
        state: before; the skip path stays as it is.
        frozen: arrays of the other networks.
        batch: real images `[m, h, w, c]` and masks.
        graphs: the static side.
        config: settings.
    """
    generator = nnx.merge(graphs.generator, frozen.generator)
    ws, rand, generated = _drawn(key, generator, batch, config)
    images, known, n = jnp.concatenate([generated, batch.real]), batch.known, len(generated)
    others = generator.synthesis(rand, noise=config.noise)

    def objective(parameters: Any) -> tuple[Array, dict[str, Array]]:
        network = nnx.merge(graphs.inpainter, parameters, frozen.buffers)
        seen = network.see(images, known)
        hidden = rand - jax.lax.stop_gradient(network.guide(others, known))
        wanted = network.counted(hidden) + seen.start
        wanted = jnp.concatenate([network.normal(ws), wanted])
        seen = jax.tree.map(lambda x: jnp.concatenate([x[:n], x]), seen)
        found = network.normal(network.styles(seen, jnp.concatenate([ws, rand])))
        value = jnp.mean(jnp.square(found - wanted))
        return value, {"latent": value, "latent_of_start": jnp.mean(jnp.square(seen.start - wanted))}

    gradient, parts = jax.grad(objective, has_aux=True)(state.parameters)
    updates, moved = optimizers(config)[0].update(gradient, state.optimizer)
    parameters = _but_skip(state.parameters, optax.apply_updates(state.parameters, updates))
    moved, average = _but_skip(state.optimizer, moved), _averaged(state, parameters, config)
    return state._replace(
        parameters=parameters, average=average, optimizer=moved, images=state.images + config.batch
    ), parts


def _but_skip(before: Any, after: Any) -> Any:
    """Returns `after` with what belongs to the skip path as it was."""

    def choose(path: Any, old: Array, new: Array) -> Array:
        own = jax.tree_util.keystr(path)
        return old if "'skip'" in own or "'second'" in own else new

    return jax.tree_util.tree_map_with_path(choose, before, after)


def _judge(graphs: Graphs, frozen: Frozen, parameters: Any) -> nnx.Module:
    return nnx.merge(graphs.discriminator, parameters, frozen.discriminator_buffers)


def _discriminator_gradient(
    graphs: Graphs,
    frozen: Frozen,
    state: State,
    real: Array,
    fused: tuple[Array, Array],
    config: HierarchicalTrainConfig,
    *,
    penalises: bool,
) -> tuple[Any, dict[str, Array]]:
    fused = jax.lax.stop_gradient(fused)

    def objective(parameters: Any) -> tuple[Array, dict[str, Array]]:
        judge = _judge(graphs, frozen, parameters)
        found, same, other = judge(real), *(judge(x) for x in fused)
        value = losses.discriminator_loss(found, same, other)
        parts = {"d_loss": value, "d_real": found.mean(), "d_fake": other.mean()}
        if penalises:
            value += config.r1_gamma * config.r1_interval * training_losses.r1_penalty(judge, real)
        return value, parts

    return jax.grad(objective, has_aux=True)(state.discriminator)
