# SPDX-License-Identifier: Apache-2.0
"""`python -m inpaint COMMAND`."""

from stylegan_jax import command_line

COMMANDS = {
    "restore": ("inpaint.commands.restore_command", "restore the holes of images in several ways"),
    "recover": ("inpaint.commands.recover_command", "undo a known degradation: low resolution, blur, noise, JPEG, .."),
    "edit": ("inpaint.commands.edit_command", "change what a restoration shows: attributes, directions, mixing"),
    "evaluate": ("inpaint.commands.evaluate_command", "measure methods on images whose truth is known"),
    "report": ("inpaint.commands.report_command", "write a page and tables from the folder of an evaluation"),
    "train": ("inpaint.commands.train_command", "train an encoder for the starts, or a classifier for constraints"),
    "assess": ("inpaint.commands.assess_command", "measure a generator: quality, memory, what it can show"),
    "constrain": ("inpaint.commands.constrain_command", "measure whether a semantic constraint is obeyed"),
    "initialise": ("inpaint.commands.initialise_command", "measure what it matters where a search begins"),
    "rank": ("inpaint.commands.rank_command", "measure how well scores tell good starts from bad ones"),
    "distance": ("inpaint.commands.distance_command", "compare two sets of images (FID)"),
    "mask": ("inpaint.commands.mask_command", "draw masks into files"),
}


def run() -> None:
    """Runs the command named by the first argument."""
    command_line.run("inpaint", COMMANDS)


if __name__ == "__main__":
    run()
