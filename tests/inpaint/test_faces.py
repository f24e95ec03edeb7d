# SPDX-License-Identifier: Apache-2.0
"""Faces in photographs: found within two pixels, restored one after the other; what is said without the detector."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest

from inpaint import faces, sample
from inpaint.photograph import Photograph
from stylegan_jax import image_io

detector = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None, reason='the extra "align" (MediaPipe) is not installed'
)
HOPPER = np.array([[219.1, 192.6], [308.4, 187.9], [268.2, 275.5]])


def astronaut():
    """Returns scikit-image's portrait of Eileen Collins, whose landmarks are those of `inpaint.sample`."""
    import skimage.data

    return skimage.data.astronaut()


def hopper():
    """Returns matplotlib's portrait of Grace Hopper."""
    matplotlib = pytest.importorskip("matplotlib", reason="its sample portrait comes with matplotlib")
    return image_io.read_picture(pathlib.Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg").levels


@detector
@pytest.mark.parametrize("picture, points", [(astronaut, sample.LANDMARKS), (hopper, HOPPER)])
def test_eyes_and_mouth_are_found(picture, points):
    """Within two pixels of those that were given by hand, and one face only."""
    [found] = faces.find(picture())
    assert np.linalg.norm(found - points, axis=1).max() < 2


@detector
def test_several_faces_are_found():
    """The larger one first, wherever they are, and none in an empty picture."""
    one = astronaut()
    small = np.full((512, 900, 3), 90, np.uint8)
    small[:512, :512], small[:256, 644:] = one, one[::2, ::2]
    found = faces.find(small)
    assert len(found) == 2
    assert np.linalg.norm(found[0] - sample.LANDMARKS, axis=1).max() < 2
    assert faces.find(np.full((300, 300, 3), 128, np.uint8)) == []


def test_only_faces_with_holes_count():
    """A face counts where its square holds hidden pixels; once it is restored, nothing is hidden there."""
    known = np.ones((512, 512), np.float32)
    known[135:146, 215:232] = 0
    photograph = Photograph(np.zeros((512, 512, 3), np.uint8), known)
    other = sample.LANDMARKS + [200, 300]
    found = faces.with_holes(photograph, [other, sample.LANDMARKS], 64)
    assert len(found) == 1 and found[0] is sample.LANDMARKS
    after = faces.restored(photograph, photograph.levels + 1, sample.LANDMARKS, 64)
    assert after.known.all() and after.levels.min() == 1
    assert faces.with_holes(after, [other, sample.LANDMARKS], 64) == []


def test_align_says_what_is_missing(tmp_path, run_commands):
    """Without the detector what to install, with landmarks that only one of the two is needed."""
    image_io.write_image(tmp_path / "a.png", np.zeros((40, 40, 3), np.uint8))
    base = ["restore", "--align", "--generator=tiny32", "--output=out"]
    done = run_commands(
        "inpaint",
        [[*base, "--image=a.png", "--mask=a.png"], [*base, "--image=a.png", "--landmarks=1,1,2,1,1,2"], base],
        tmp_path,
    )
    assert [code for code, _, _ in done] == [1, 1, 1]
    if importlib.util.find_spec("mediapipe") is None:
        assert 'pip install ".[align]"' in done[0][2] and "--landmarks" in done[0][2]
    assert all("give only one of the two" in errors for _, _, errors in done[1:])
    assert all(errors.count("\n") == 1 for _, _, errors in done)


@detector
def test_faces_are_restored_one_after_the_other(tmp_path, run_commands):
    """Both holes are filled in one photograph, known pixels are the input's bit for bit, and a second call skips."""
    one, both = astronaut(), np.full((512, 1024, 3), 90, np.uint8)
    both[:, :512], both[:, 512:] = one, one
    mask = np.zeros((512, 1024), np.uint8)
    mask[120:150, 205:245] = mask[120:150, 717:757] = 255
    image_io.write_image(tmp_path / "two.png", both)
    image_io.write_image(tmp_path / "mask.png", mask)
    call = ["restore", "--align", "--image=two.png", "--mask=mask.png", "--generator=tiny32", "--method=latent_search"]
    call += ["--starts=2", "--steps=2", "--keep=1", "--config.search.pool=2", "--output=out"]
    done = run_commands("inpaint", [[*call, "--dry_run"], call, call], tmp_path)
    assert [code for code, _, _ in done] == [0, 0, 0], [errors for _, _, errors in done]
    assert len(json.loads((tmp_path / "out" / "faces.json").read_text())) == 2
    photo = image_io.read_picture(tmp_path / "out" / "photo.png").levels
    np.testing.assert_array_equal(photo[mask == 0], both[mask == 0])
    for side in (slice(0, 512), slice(512, 1024)):
        assert (photo[:, side][mask[:, side] > 0] != both[:, side][mask[:, side] > 0]).mean() > 0.9
    assert "with all 2 faces" in done[1][1] and "skipped" in done[2][1]
