# SPDX-License-Identifier: Apache-2.0
"""Speed of StyleGAN3's filtered leaky ReLU: value, and gradient with respect to its input.

    python benchmarks/filtered_lrelu.py --output benchmarks/results/filtered_lrelu.json

Compares the library's polyphase form with two that insert zeros: shifted slices of the zero-inserted image (the
resampling module that StyleGAN2 uses), and depthwise convolutions whose filters are repeated for each channel. Forms
alternate within a run, so that a busy machine slows all of them.
"""

import dataclasses
import os

import jax
import jax.numpy as jnp
import measured
from absl import app, flags, logging
from jax import Array, lax

from stylegan_jax import stylegan3
from stylegan_jax.ops import filtered_lrelu, resample

_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results.")
_BATCH = flags.DEFINE_integer("batch", 1, "Batch size.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs after one that compiles; the fastest counts.")
_LAYERS = flags.DEFINE_list("layers", ["0", "4", "7"], "Layers of the 256-pixel networks T and R.")
_DEPTHWISE = flags.DEFINE_bool("depthwise", True, "Measure the depthwise form too, which takes long on a CPU.")


@dataclasses.dataclass
class Case:
    """One measured form of one layer."""

    network: str
    layer: str
    batch: int
    form: str
    value_seconds: float
    gradient_seconds: float
    value_ratio: float
    gradient_ratio: float


def activate(x: Array, clamp: float = 256.0) -> Array:
    """Returns the activation of `x` `[n, h, w, c]` between the filters."""
    return jnp.clip(jnp.where(x >= 0, x, x * 0.2) * 2**0.5, -clamp, clamp)


def polyphase(x: Array, up_taps: Array, down_taps: Array, shape: stylegan3.LayerShape) -> Array:
    """Returns the library's form for `x` `[n, h, w, c]`."""
    return filtered_lrelu.filtered_lrelu(
        x,
        jnp.zeros(x.shape[3]),
        up_taps=up_taps,
        down_taps=down_taps,
        up=shape.up,
        down=shape.down,
        padding=shape.padding,
        clamp=256.0,
    )


def zero_inserted(x: Array, up_taps: Array, down_taps: Array, shape: stylegan3.LayerShape) -> Array:
    """Returns the same by shifted slices of the zero-inserted image, for `x` `[n, h, w, c]`."""
    y = resample.upfirdn2d(x, up_taps, up=shape.up, padding=shape.padding * 2, gain=shape.up**2)
    return resample.upfirdn2d(activate(y), down_taps, down=shape.down)


def depthwise(x: Array, up_taps: Array, down_taps: Array, shape: stylegan3.LayerShape) -> Array:
    """Returns the same by depthwise convolutions with zero-dilated input, for `x` `[n, h, w, c]`."""

    def convolve(x: Array, taps: Array, up: tuple, down: tuple, padding: tuple) -> Array:
        kernel = jnp.tile(jnp.flip(taps, (0, 1))[:, :, None, None], (1, 1, 1, x.shape[3]))
        options = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[3])
        return lax.conv_general_dilated(x, kernel, down, padding, lhs_dilation=up, **options)

    before, after = shape.padding
    padding, none = (before, after + shape.up - 1), (0, 0)
    x = convolve(x, up_taps[:, None] * shape.up, (shape.up, 1), (1, 1), (padding, none))
    x = activate(convolve(x, up_taps[None, :] * shape.up, (1, shape.up), (1, 1), (none, padding)))
    rate = shape.down
    if down_taps.ndim == 2:
        return convolve(x, down_taps, (1, 1), (rate, rate), (none, none))
    x = convolve(x, down_taps[:, None], (1, 1), (rate, 1), (none, none))
    return convolve(x, down_taps[None, :], (1, 1), (1, rate), (none, none))


def measure(network: str, index: int) -> list[Case]:
    """Returns the cases of one layer of a 256-pixel network."""
    scale, options = (2, dict(kernel=1, radial_filters=True)) if network == "R" else (1, {})
    widths = stylegan3.channel_widths(256, channel_base=16384 * scale, channel_max=512 * scale)
    config = stylegan3.GeneratorConfig(widths=widths, resolution=256, **options)
    shape = stylegan3.layer_shapes(config)[index]
    up_taps, down_taps = map(jnp.asarray, stylegan3.design_filters(shape))
    size = shape.in_size + shape.kernel - 1
    x = jax.random.normal(jax.random.key(0), (_BATCH.value, size, size, shape.out_channels))
    forms = {"polyphase": polyphase, "zeros, slices": zero_inserted}
    if _DEPTHWISE.value:
        forms["zeros, depthwise"] = depthwise
    values, gradients = {}, {}
    for name, form in forms.items():
        value = jax.jit(lambda x, u, d, form=form: form(x, u, d, shape))
        gradient = jax.jit(jax.grad(lambda x, u, d, form=form: jnp.sum(jnp.square(form(x, u, d, shape)))))
        values[name] = lambda value=value: value(x, up_taps, down_taps)
        gradients[name] = lambda gradient=gradient: gradient(x, up_taps, down_taps)
    reference = values["polyphase"]()
    for name, run in values.items():
        if not jnp.allclose(run(), reference, atol=1e-4):
            raise AssertionError(f"{name} differs from the polyphase form")
    value_seconds, gradient_seconds = (
        measured.fastest(values, _REPEATS.value),
        measured.fastest(gradients, _REPEATS.value),
    )
    cases = []
    for name in forms:
        ratios = (s[name] / s["polyphase"] for s in (value_seconds, gradient_seconds))
        case = Case(network, shape.name, _BATCH.value, name, value_seconds[name], gradient_seconds[name], *ratios)
        cases.append(case)
        print(
            f"| {network} {case.layer} (up {shape.up}) | {case.batch} | {name} | {case.value_seconds:.4f} | "
            f"{case.gradient_seconds:.4f} | {case.value_ratio:.2f} | {case.gradient_ratio:.2f} |",
            flush=True,
        )
    return cases


def main(argv: list[str]) -> None:
    """Measures all layers and writes the results."""
    logging.set_verbosity(logging.WARNING)
    print(f"{measured.device()}, {os.cpu_count()} cores", flush=True)
    print("| layer | batch | form | value, s | gradient, s | value / polyphase | gradient / polyphase |")
    print("|---|---|---|---|---|---|---|", flush=True)
    cases = [case for network in "TR" for index in _LAYERS.value for case in measure(network, int(index))]
    measured.write(_OUTPUT.value, {"cases": [dataclasses.asdict(case) for case in cases]})


if __name__ == "__main__":
    app.run(main)
