# SPDX-License-Identifier: Apache-2.0
"""What every way of searching finds again of images that the generator can make, or cannot.

The fixture is a random generator of 16 px; two images of it, a hole of a quarter, eight starts, the lowest objective
selected. Thresholds stand some dB below what was measured, of the worse of the two images: float32 searches amplify
rounding, so another compiler ends elsewhere.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import inpaint
import stylegan_jax as sg
from inpaint import methods, operators
from inpaint.edit import redraw
from inpaint.search import schedule, transforms
from inpaint.search.method import Method, Phase
from inpaint.terms import term
from stylegan_jax import latents
from stylegan_jax.heads import StyleHead
from stylegan_jax.joint import Joint, Noise

SIZE, DIM, STARTS = 16, 16, 8
KEY = jax.random.key(10)


@functools.cache
def generator():
    """Returns the random generator; its noise is felt only where it is searched."""
    config = sg.GeneratorConfig(widths=(16, 16, 16), z_dim=DIM, w_dim=DIM, mapping_layers=4)
    found = sg.Generator(config, rngs=nnx.Rngs(1))
    for name in ("b4.conv1", "b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1"):
        block, layer = name.split(".")
        getattr(getattr(found.synthesis, block), layer).noise_strength[...] = jnp.asarray(0.1)
    return found


@functools.cache
def truths():
    """Returns two images of the generator, without noise, of whatever range they have."""
    run = jax.jit(lambda g, z: g.synthesis(jnp.repeat(g.mapping(z)[:, None], g.config.num_ws, 1), noise="none"))
    return np.asarray(run(generator(), jax.random.normal(jax.random.key(3), (2, DIM))))


def mask():
    known = np.ones((SIZE, SIZE), np.float32)
    known[4:12, 4:12] = 0
    return known


def masked():
    operator = operators.Mask.checked(mask())
    return inpaint.Problem.stack([inpaint.Problem(operator, jnp.asarray(x) * mask()[..., None]) for x in truths()])


def sensed(count):
    problems = []
    for i, x in enumerate(truths()):
        operator = operators.PartialCirculant.draw(jax.random.key(i), x.shape, ratio=count / x.size)
        problems.append(inpaint.Problem(operator, operator(jnp.asarray(x))))
    return inpaint.Problem.stack(problems)


def whole(images):
    operator = operators.Mask(jnp.ones((SIZE, SIZE)))
    return inpaint.Problem.stack([inpaint.Problem(operator, jnp.asarray(x)) for x in images])


def decibels(error, truth):
    """Returns the PSNR of a mean squared error in units of the image's own range."""
    return 10 * np.log10(np.square(np.ptp(truth)) / np.maximum(error, 1e-20))


def found(problem, phases, *, initialisation=None, starts=STARTS, targets=None):
    """Returns (known dB, hole dB) of the selected start, the worse of the images."""
    method = phases if isinstance(phases, Method) else Method("m", phases, initialisation or inpaint.RandomMapping())
    result = inpaint.solve(generator(), problem, method, starts=starts, key=KEY)
    best = inpaint.select(result).images[:, 0]
    targets = truths() if targets is None else targets
    error, hole = np.square(best - targets).mean(-1), mask() == 0
    return tuple(
        min(decibels(e[where].mean(), t) for e, t in zip(error, targets, strict=True)) for where in (~hole, hole)
    )


def phase(space, steps, lr, *terms):
    return Phase(space, steps, schedule.adam(lr, steps), terms or (term("l2"),), "none")


def by_w():
    return found(masked(), (phase(latents.W, 300, 0.1),))


def by_w_plus():
    return found(masked(), (phase(latents.WPLUS, 300, 0.05),))


def by_normalised_gradients():
    spaces = ((latents.W, 0.08), (latents.WPLUS, 0.02))
    return found(
        masked(), tuple(Phase(s, 150, transforms.normalized_gradient(lr), (term("l2"),), "none") for s, lr in spaces)
    )


def by_pulse():
    method = methods.pulse(maps=0, floor=0.0)
    phases = tuple(dataclasses.replace(x, noise="none") for x in method.phases)
    return found(masked(), dataclasses.replace(method, phases=phases))


def by_filipovski():
    return found(masked(), methods.filipovski(steps=600, lr=0.03, prior=0.0, window=5, noise="none"))


def by_sensing():
    return found(sensed(4 * DIM), (phase(latents.W, 300, 0.1),))


CASES = {
    # name: (function, which of known and hole, measured dB, threshold dB)
    "W": (by_w, 1, 135.4, 60),
    "W+": (by_w_plus, 0, 43.0, 33),
    "normalised gradients, W then W+": (by_normalised_gradients, 1, 44.0, 33),
    "PULSE": (by_pulse, 0, 35.6, 30),
    "window-weighted L1 in Z": (by_filipovski, 0, 57.9, 38),
    "compressed sensing, four measurements for every dimension of W": (by_sensing, 1, 126.1, 45),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_images_of_the_generator_are_recovered(name):
    """The selected start meets the threshold."""
    function, which, _, threshold = CASES[name]
    assert function()[which] >= threshold


@pytest.mark.slow
def test_noise_is_taken_away():
    """What W can show of a noisy image is nearer to the clean one than the noisy image: measured 18.1 to 33.0 dB."""
    clean = truths()
    noisy = clean + 0.125 * np.ptp(clean, axis=(1, 2, 3), keepdims=True) * np.random.default_rng(0).normal(
        size=clean.shape
    )
    noisy = noisy.astype(np.float32)
    before = min(decibels(np.square(a - b).mean(), b) for a, b in zip(noisy, clean, strict=True))
    after = min(found(whole(noisy), (phase(latents.W, 300, 0.1),)))
    assert after >= before + 12


@pytest.mark.slow
def test_noise_maps_reach_what_latents_do_not():
    """An image that the generator cannot make is met better by W+ and noise maps (measured 24.0 dB) than by W+ alone
    (14.8 dB)."""
    images = np.random.default_rng(1).uniform(-1, 1, (2, 4, 4, 3)).repeat(4, 1).repeat(4, 2).astype(np.float32)
    plain = found(whole(images), (phase(latents.WPLUS, 300, 0.05),), starts=1, targets=images)
    maps = found(whole(images), (phase(Joint(latents.WPLUS, (Noise(),)), 300, 0.05),), starts=1, targets=images)
    assert min(maps) >= min(plain) + 6


@dataclasses.dataclass(frozen=True)
class OneDraw(StyleHead):
    """A style head that sees one draw at all steps."""

    def to_inputs(self, host, v):
        return super().to_inputs(host._replace(key=jax.random.key(0)), v)


@pytest.mark.slow
def test_a_head_that_saw_every_draw_knows_all():
    """With fresh draws at every step, unseen ones give what was seen, to 3 dB (measured: 47.4 dB, the worst of 16 draws
    46.4); with one draw they do not (59.9 and 26.3)."""
    problem = whole(truths()[:1])
    figures = {}
    for kind in (StyleHead, OneDraw):
        space = kind((64, 32, 16), (16, 32))
        searched = Phase(space, 600, schedule.adam(0.003, 600), (term("l2"),), "none")
        result = inpaint.solve(
            generator(), problem, Method("head", (searched,), inpaint.RandomMapping()), starts=1, key=KEY
        )
        v = jax.tree.map(lambda x: jnp.asarray(x[0, 0]), result.variables)
        plain = StyleHead(space.encoder, space.decoder)
        unseen = redraw(jax.random.key(7), generator(), plain, v, count=16, noise="none")
        errors = np.square(np.asarray(unseen) - truths()[0]).mean((1, 2, 3))
        own = decibels(np.square(result.raw[0, 0] - truths()[0]).mean(), truths()[0])
        figures[kind] = own, decibels(errors.mean(), truths()[0]), decibels(errors.max(), truths()[0])
    own, mean, worst = figures[StyleHead]
    assert worst >= own - 3
    assert figures[OneDraw][2] <= figures[OneDraw][0] - 5 and figures[OneDraw][2] <= worst - 5
