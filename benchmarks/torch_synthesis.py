# SPDX-License-Identifier: Apache-2.0
"""The synthesis network in eager PyTorch, for comparison only: same shapes, random weights, no custom operators."""

import time

import torch
from torch.nn import functional

import stylegan_jax as sg


def _taps() -> torch.Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64


def _fir(x: torch.Tensor, gain: float, pad: tuple[int, int]) -> torch.Tensor:
    channels = x.shape[1]
    kernel = (_taps() * gain).expand(channels, 1, 4, 4)
    return functional.conv2d(functional.pad(x, (*pad, *pad)), kernel, groups=channels)


def _upsample(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    wide = torch.zeros(n, c, h, 2, w, 2)
    wide[:, :, :, 0, :, 0] = x
    return _fir(wide.reshape(n, c, 2 * h, 2 * w), 4.0, (2, 1))


def _modulated(x, weight, style, *, up: bool, demodulate: bool, per_sample: bool) -> torch.Tensor:
    n, channels_in, h, w = x.shape
    out, _, k, _ = weight.shape
    if per_sample:
        kernel = weight[None] * style[:, None, :, None, None]
        if demodulate:
            kernel = kernel * (kernel.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        x = x.reshape(1, n * channels_in, h, w)
        if up:
            kernel = kernel.transpose(1, 2).reshape(n * channels_in, out, k, k)
            y = functional.conv_transpose2d(x, kernel, stride=2, groups=n)
            return _fir(y.reshape(n, out, 2 * h + 1, 2 * w + 1), 4.0, (1, 1))
        return functional.conv2d(x, kernel.reshape(n * out, channels_in, k, k), padding=k // 2, groups=n).reshape(
            n, out, h, w
        )
    x = x * style[:, :, None, None]
    if up:
        y = _fir(functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2), 4.0, (1, 1))
    else:
        y = functional.conv2d(x, weight, padding=k // 2)
    if demodulate:
        y = y * (style.square() @ weight.square().sum((2, 3)).T + 1e-8).rsqrt()[:, :, None, None]
    return y


class Synthesis:
    """The skip architecture of StyleGAN2 without noise; `ws` `[n, num_ws, w_dim]` to images `[n, 3, r, r]`."""

    def __init__(self, config: sg.GeneratorConfig):
        torch.manual_seed(0)
        self.config, self.layers = config, []
        for i, width in enumerate(config.widths):
            below = config.widths[max(i - 1, 0)]
            convs = [] if i == 0 else [self._layer(below, width, 3)]
            self.layers.append((convs, self._layer(width, width, 3), self._layer(width, 3, 1)))
        self.const = torch.randn(1, config.widths[0], 4, 4)

    def _layer(self, channels_in: int, out: int, k: int) -> tuple[torch.Tensor, ...]:
        scale = self.config.w_dim**-0.5
        return (
            torch.randn(out, channels_in, k, k),
            torch.randn(self.config.w_dim, channels_in) * scale,
            torch.randn(out),
        )

    def __call__(self, ws: torch.Tensor, *, per_sample: bool) -> torch.Tensor:
        x, image, index = self.const.expand(len(ws), -1, -1, -1), None, 0
        for up_layers, plain, rgb in self.layers:
            for (weight, affine, bias), up in [(layer, True) for layer in up_layers] + [(plain, False)]:
                style = ws[:, index] @ affine + 1
                x = _modulated(x, weight, style, up=up, demodulate=True, per_sample=per_sample)
                x = functional.leaky_relu(x + bias[None, :, None, None], 0.2) * 2**0.5
                index += 1
            weight, affine, bias = rgb
            style = (ws[:, index] @ affine + 1) * weight.shape[1] ** -0.5
            y = (
                _modulated(x, weight, style, up=False, demodulate=False, per_sample=per_sample)
                + bias[None, :, None, None]
            )
            image = y if image is None else _upsample(image) + y
        return image


def time_torch(config: sg.GeneratorConfig, batch: int, *, per_sample: bool, repeats: int) -> tuple[float, None]:
    """Returns the seconds of the fastest of `repeats` runs of value and gradient."""
    network = Synthesis(config)
    ws = torch.randn(batch, config.num_ws, config.w_dim, requires_grad=True)
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        ws.grad = None
        network(ws, per_sample=per_sample).square().mean().backward()
        times.append(time.perf_counter() - began)
    return min(times[1:]), None
