# SPDX-License-Identifier: Apache-2.0
"""`python -m stylegan_jax COMMAND`: train a generator or a judge, or render images."""

from stylegan_jax import command_line

COMMANDS = {
    "train": ("stylegan_jax.training.command", "train a StyleGAN2 or a DCGAN on a folder of images or an npz"),
    "train_judge": ("stylegan_jax.training.judge_command", "train the network that judges restorations"),
    "render": ("stylegan_jax.render_command", "render random samples, or the latents of a restoration"),
}


def run() -> None:
    """Runs the command named by the first argument."""
    command_line.run("stylegan_jax", COMMANDS)


if __name__ == "__main__":
    run()
