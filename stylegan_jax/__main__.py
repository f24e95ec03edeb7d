# SPDX-License-Identifier: Apache-2.0
"""`python -m stylegan_jax COMMAND`: train a generator, or render images with one."""

import importlib
import logging
import sys

from absl import app

COMMANDS = {
    "train": ("stylegan_jax.training.command", "train a StyleGAN2 on a folder of images or an npz"),
    "render": ("stylegan_jax.render_command", "render random samples, or the latents of a restoration"),
}


def run(argv: list[str] | None = None) -> None:
    """Runs the command named by the first argument."""
    argv = sys.argv if argv is None else argv
    if len(argv) < 2 or argv[1] not in COMMANDS:
        asked = len(argv) > 1 and argv[1] in ("help", "--help", "-h")
        lines = [f"  {name:8} {what}" for name, (_, what) in COMMANDS.items()]
        usage = "usage: python -m stylegan_jax COMMAND [flags]\n" + "\n".join(lines)
        print(
            usage + "\nFlags of a command: python -m stylegan_jax COMMAND --help",
            file=sys.stdout if asked else sys.stderr,
        )
        sys.exit(0 if asked else 2)
    logging.getLogger("absl").setLevel(logging.ERROR)
    module = importlib.import_module(COMMANDS[argv[1]][0])
    app.run(module.main, argv=[f"{argv[0]} {argv[1]}", *argv[2:]])


if __name__ == "__main__":
    run()
