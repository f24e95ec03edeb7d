# SPDX-License-Identifier: Apache-2.0
"""Forms of StyleGAN2's transposed and strided convolutions, alone and within value and gradient of synthesis.

    python benchmarks/convolutions.py --output benchmarks/results/convolutions.json

The first form of each is the library's. Forms alternate within a run.
"""

import contextlib
import functools
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp
import measured
from absl import app, flags, logging
from flax import nnx
from jax import Array, lax

import stylegan_jax as sg
from stylegan_jax.ops import convolution, modulated_conv

_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results.")
_REPEATS = flags.DEFINE_integer("repeats", 7, "Timed runs after one that compiles; the fastest counts.")
_LAYERS = flags.DEFINE_list(
    "layers",
    ["8x4x128x128", "8x32x32x32", "16x8x512x256", "16x32x128x64", "1x32x512x512", "4x64x512x256", "4x128x256x128"],
    "Up-convolutions by batch, size of the input, its channels and those of the output; 'none': no layers.",
)
_NETWORKS = flags.DEFINE_list("networks", ["64x4096x16", "256x16384x1", "256x16384x4"], "Pixels, channel_base, batch.")


Pads = tuple[tuple[int, int], tuple[int, int]]


def _convolve(x: Array, weight: Array, *, pads: Pads, stride: int = 1, dilation: int = 1) -> Array:
    return lax.conv_general_dilated(
        x, weight, (stride,) * 2, pads, lhs_dilation=(dilation,) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def up_dilated(x: Array, weight: Array) -> Array:
    """Returns the transposed convolution as one convolution of the zero-inserted `x`."""
    return _convolve(x, jnp.flip(weight, (0, 1)), pads=((2, 2), (2, 2)), dilation=2)


def up_one_kernel(x: Array, weight: Array) -> Array:
    """Returns it as one 2x2 convolution to the four phases: 16 products for each pixel of `x` instead of 9."""
    n, height, width, _ = x.shape
    rows = jnp.stack([jnp.stack([weight[2], weight[0]]), jnp.stack([jnp.zeros_like(weight[0]), weight[1]])])
    zero = jnp.zeros_like(rows[:, :, 0])
    phases = [jnp.stack([rows[:, :, 2], rows[:, :, 0]], 2), jnp.stack([zero, rows[:, :, 1]], 2)]
    kernel = jnp.stack(phases, 1).transpose(2, 3, 4, 0, 1, 5).reshape(2, 2, x.shape[3], -1)
    y = _convolve(x, kernel, pads=((1, 1), (1, 1))).reshape(n, height + 1, width + 1, 2, 2, -1)
    y = y.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * height + 2, 2 * width + 2, -1)
    return y[:, :-1, :-1]


def up_columns(x: Array, weight: Array) -> Array:
    """Returns it as one matrix product to all taps, which then are added where they overlap."""
    n, height, width, channels = x.shape
    taps = x.reshape(-1, channels) @ weight.transpose(2, 0, 1, 3).reshape(channels, -1)
    y = jnp.pad(taps.reshape(n, height, width, 3, 3, -1), ((0, 0), (0, 1), (0, 1), (0, 0), (0, 0), (0, 0)))

    def overlapped(y: Array, axis: int) -> Array:
        first, second, third = (lax.index_in_dim(y, i, 3, keepdims=False) for i in range(3))
        even, shape = first + jnp.roll(third, 1, axis), list(first.shape)
        shape[axis] *= 2
        return jnp.stack([even, second], axis + 1).reshape(shape)

    return overlapped(overlapped(y, 1), 2)[:, :-1, :-1]


def down_strided(x: Array, weight: Array) -> Array:
    """Returns the strided convolution as one of XLA's; `weight` `[3, 3, out, in]` as for the gradient."""
    return _convolve(x, weight.swapaxes(2, 3), pads=((0, 0), (0, 0)), stride=2)


def down_sub_grids(x: Array, weight: Array) -> Array:
    """Returns the strided convolution as the sum of those of the four sub-grids of `x`."""
    none, weight = ((0, 0), (0, 0)), weight.swapaxes(2, 3)
    y = _convolve(x[:, ::2, ::2], weight[::2, ::2], pads=none) + x[:, 1::2, 1::2] @ weight[1, 1]
    y += _convolve(x[:, ::2, 1::2], weight[::2, 1:2], pads=none)
    return y + _convolve(x[:, 1::2, ::2], weight[1:2, ::2], pads=none)


def down_patches(x: Array, weight: Array) -> Array:
    """Returns it as one matrix product of gathered patches."""
    n, height, width, weight = x.shape[0], x.shape[1] // 2, x.shape[2] // 2, weight.swapaxes(2, 3)
    ends = (2 * height - 1, 2 * width - 1)
    taps = [x[:, i : i + ends[0] : 2, j : j + ends[1] : 2] for i in range(3) for j in range(3)]
    patches = jnp.concatenate(taps, -1).reshape(n * height * width, -1)
    return (patches @ weight.reshape(patches.shape[1], -1)).reshape(n, height, width, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv2d_before(x: Array, weight: Array, padding: int = 0) -> Array:
    """Returns the plain convolution, whose input's gradient turns the kernel by a copy; not of weights."""
    return _convolve(x, weight, pads=((padding, padding), (padding, padding)))


def _before_backward(padding: int, weight: Array, y: Array) -> tuple[Array, Array]:
    turned = jnp.flip(weight, (0, 1)).swapaxes(2, 3)
    return _convolve(y, turned, pads=((padding, padding), (padding, padding))), jnp.zeros_like(weight)


conv2d_before.defvjp(lambda x, weight, padding: (conv2d_before(x, weight, padding), weight), _before_backward)


def demodulation_before(weight: Array, styles: Array) -> Array:
    """Returns the demodulation with the energy of a kernel as one reduction."""
    return lax.rsqrt(jnp.square(styles) @ jnp.sum(jnp.square(weight), axis=(0, 1)) + modulated_conv.EPSILON)


UP = {
    "four phases": convolution.conv2d_up,
    "one kernel": up_one_kernel,
    "columns": up_columns,
    "zeros inserted": up_dilated,
}
DOWN = {
    "taps (on CPUs)": lambda x, weight: convolution._conv2d_down(x, weight, True),
    "strided": down_strided,
    "sub-grids": down_sub_grids,
    "patches": down_patches,
}


def _rows(name: str, forms: dict[str, Callable[[], Array]], operations: float, tolerance: float) -> list[dict]:
    """Returns times of all forms and their ratio to the first, which they must agree with."""
    reference = next(iter(forms.values()))()
    for form, run in forms.items():
        error = float(jnp.abs(run() - reference).max() / jnp.abs(reference).max())
        if error > tolerance:
            raise AssertionError(f"{name}: {form} differs from the library's form by {error:.1e}")
    seconds = measured.fastest(forms, _REPEATS.value)
    own = next(iter(seconds.values()))
    found = []
    for form, s in seconds.items():
        rate = operations / s / 1e9
        found.append({"what": name, "form": form, "seconds": s, "gflops_per_second": rate, "time_of_ours": s / own})
        print(f"| {name} | {form} | {1e3 * s:.2f} | {rate:.0f} | {s / own:.2f} |", flush=True)
    return found


def layer(text: str) -> list[dict]:
    """Returns the times of one up-convolution and of its input's gradient, which is strided."""
    n, size, channels, out = map(int, text.split("x"))
    x = jax.random.normal(jax.random.key(0), (n, size, size, channels))
    y = jax.random.normal(jax.random.key(1), (n, 2 * size + 1, 2 * size + 1, out))
    weight = jax.random.normal(jax.random.key(2), (3, 3, channels, out))
    operations, found = 2.0 * 9 * n * size**2 * channels * out, []
    for name, forms, arrays in (("up", UP, (x, weight)), ("down", DOWN, (y, weight))):
        runs = {form: jax.jit(function) for form, function in forms.items()}
        calls = {form: (lambda run=run, arrays=arrays: run(*arrays)) for form, run in runs.items()}
        found += _rows(f"{name} {text}", calls, operations, 1e-5)
    return found


def network(text: str) -> list[dict]:
    """Returns the times of value and gradient of synthesis by ws: as the library has it, and as it was before."""
    resolution, base, batch = map(int, text.split("x"))
    config = sg.GeneratorConfig(widths=sg.channel_widths(resolution, channel_base=base))
    graph, state = nnx.split(sg.Generator(config, rngs=nnx.Rngs(0)))
    ws = jax.random.normal(jax.random.key(1), (batch, config.num_ws, config.w_dim))

    def gradient(state, ws: Array) -> Array:
        synthesis = nnx.merge(graph, state).synthesis
        return jax.grad(lambda ws: jnp.mean(jnp.square(synthesis(ws))))(ws)

    def compiled(before: bool) -> Callable[[], Array]:
        @jax.custom_vjp
        def up(x: Array, weight: Array) -> Array:
            return up_one_kernel(x, weight)

        up.defvjp(
            lambda x, weight: (up(x, weight), weight),
            lambda weight, y: (down_strided(y, weight), jnp.zeros_like(weight)),
        )
        with contextlib.ExitStack() as patched:
            if before:
                patched.enter_context(mock.patch.multiple(convolution, conv2d_up=up, conv2d=conv2d_before))
                patched.enter_context(mock.patch.object(modulated_conv, "demodulation", demodulation_before))
            run = jax.jit(lambda state, ws: gradient(state, ws)).lower(state, ws).compile()
        return lambda: run(state, ws)

    forms = {"now": compiled(False), "before": compiled(True)}
    pixels = sum((4 << i) ** 2 * width * width for i, width in enumerate(config.widths))
    ups = sum((4 << i) ** 2 * a * b for i, (a, b) in enumerate(zip(config.widths, config.widths[1:], strict=False)))
    # Where a rounding turns the sign before a leaky ReLU, gradients differ by more than roundings.
    return _rows(f"synthesis {text}", forms, batch * 2.0 * 2.0 * 9 * (pixels + ups), 1e-3)


def main(argv: list[str]) -> None:
    """Measures layers and networks, and writes the results."""
    logging.set_verbosity(logging.WARNING)
    rate = measured.matmul_rate()
    print(f"{measured.device()}, matmul {rate:.0f} GFLOP/s", flush=True)
    print("| what | form | ms | GFLOP/s | time / the library's |\n|---|---|---|---|---|", flush=True)
    layers = [row for text in _LAYERS.value if text != "none" for row in layer(text)]
    networks = [row for text in _NETWORKS.value for row in network(text)]
    measured.write(_OUTPUT.value, {"matmul_gflops_per_second": rate, "rows": layers + networks})


if __name__ == "__main__":
    app.run(main)
