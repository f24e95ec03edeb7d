# SPDX-License-Identifier: Apache-2.0
"""The composite that goes towards what a linear encoder expects: its formula, when it is asked, and an edit of it."""

import jax.numpy as jnp
import numpy as np
import pytest

from inpaint import blend, named_methods
from inpaint import config as _config
from stylegan_jax import image_io

SIZE, SEEN = 16, 4
KNOWN = np.ones((SIZE, SIZE), np.float32)
KNOWN[4:12, 2:14] = 0


def random_image(seed, *lead, size=SIZE):
    return np.random.default_rng(seed).uniform(-1, 1, (*lead, size, size, 3)).astype(np.float32)


def test_correction_by_hand():
    """The means of the clipped render's blocks are missing a share of what is expected; the rest is as it was."""
    render, means = 1.5 * random_image(0), random_image(1, size=SEEN)
    found = np.clip(render, -1, 1).reshape(SEEN, 4, SEEN, 4, 3).mean((1, 3))
    by_hand = 0.25 * np.asarray(blend.correction(render, means, share=1.0))
    np.testing.assert_allclose(blend.correction(render, means, share=0.25), by_hand, atol=1e-6)
    # Cubic interpolation keeps constants, so the same difference everywhere is added as it is.
    np.testing.assert_allclose(blend.correction(render, found + 0.5, share=0.5), np.full_like(render, 0.25), atol=1e-5)
    np.testing.assert_allclose(blend.correction(render, found, share=1.0), np.zeros_like(render), atol=1e-6)


def test_known_pixels_and_leading_axes():
    """Known pixels are the image's bit for bit, and every render is composed by itself."""
    image, renders, means = random_image(0), random_image(1, 2, 3), random_image(2, size=SEEN)
    together = np.asarray(blend.expected(renders, image, KNOWN, means=means))
    assert np.array_equal(
        together[..., KNOWN == 1, :], np.broadcast_to(image[KNOWN == 1], (2, 3, *image[KNOWN == 1].shape))
    )
    alone = blend.expected(renders[1, 2], image, KNOWN, means=means)
    # The solver of `carried` sums in another order for one render than for six.
    np.testing.assert_allclose(together[1, 2], alone, atol=5e-6)
    assert np.abs(together).max() <= 1


def test_no_share_is_carried():
    """Without a share, and where the render is as expected already, nothing is added."""
    image, render = random_image(0), random_image(1)
    plain = blend.carried(render, image, KNOWN)
    np.testing.assert_array_equal(
        blend.expected(render, image, KNOWN, means=random_image(2, size=SEEN), share=0.0), plain
    )
    means = render.reshape(SEEN, 4, SEEN, 4, 3).mean((1, 3))
    np.testing.assert_allclose(blend.expected(render, image, KNOWN, means=means, share=1.0), plain, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"share": 1.5}, r"share must be in \[0, 1\], got 1.5"),
        ({"means": np.zeros((5, 5, 3), np.float32)}, r"of blocks of 16 x 16 x 3 pixels, got \[5, 5, 3\]"),
        ({"means": np.zeros((4, 4, 1), np.float32)}, r"got \[4, 4, 1\]"),
        ({"reach": 0.0}, "reach must be above 0"),
    ],
)
def test_what_cannot_be(options, reason):
    """Told in one line."""
    means = {"means": np.zeros((4, 4, 3), np.float32)}
    with pytest.raises(ValueError, match=reason):
        blend.expected(random_image(0), random_image(1), KNOWN, **(means | options))


def test_when_it_is_asked():
    """By the default with an encoder; not under a constraint, or without means."""
    config = named_methods.named("encoder_search")
    means = random_image(2, size=SEEN)
    assert config.composite == "expected" and _config.takes_means(config, means)
    assert not _config.takes_means(config, None)
    config.search.attributes = ("teeth_visible=1",)
    assert not _config.takes_means(config, means)
    assert not _config.takes_means(named_methods.named("brief"), means)
    image, render = random_image(0), random_image(1)
    np.testing.assert_array_equal(
        _config.composite(config, render, image, KNOWN, means=means), np.asarray(blend.carried(render, image, KNOWN))
    )


def test_restored_and_edited(tmp_path, run_commands):
    """The command composes by what its encoder expects, keeps it, and an edit of strength 0 is the restoration."""
    quick = ["--steps", "2", "--starts", "1", "--keep", "1"]
    done = run_commands(
        "inpaint",
        [
            ["restore", *quick, "--output", "restored"],
            ["restore", *quick, "--output", "plain", "--config.composite=carried"],
            ["edit", "--restored", "restored", "--direction", "sefa:0", "--strength", "0,2"] + ["--output", "edited"],
        ],
        tmp_path,
    )
    assert [code for code, _, _ in done] == [0, 0, 0], [errors for _, _, errors in done]

    def picture(name):
        return image_io.read_image(tmp_path / name)[0]

    with np.load(tmp_path / "restored" / "latents.npz") as kept, np.load(tmp_path / "plain" / "latents.npz") as plain:
        means, known, image = kept["expected"], kept["known"], image_io.from_uint8(kept["image"])
        np.testing.assert_array_equal(kept["w"], plain["w"])
        assert "expected" not in plain.files
    raw = picture("restored/raw_1.png")
    by_hand = blend.expected(jnp.asarray(raw), jnp.asarray(image), jnp.asarray(known), means=jnp.asarray(means))
    # The render was rounded to 8 bits on its way.
    np.testing.assert_allclose(picture("restored/restored_1.png"), by_hand, atol=2.5 / 127.5)
    assert np.abs(picture("restored/restored_1.png") - picture("plain/restored_1.png")).max() > 0.05
    np.testing.assert_array_equal(picture("edited/edited_1_1.png"), picture("restored/restored_1.png"))
    assert np.abs(picture("edited/edited_1_2.png") - picture("restored/restored_1.png")).max() > 0.05
