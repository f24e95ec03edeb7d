# SPDX-License-Identifier: Apache-2.0
"""Verifying: a sound checkpoint agrees, and whatever is changed on either side is found and named."""

import dataclasses
import io
import json
import pathlib
import types
import zipfile

import numpy as np
import pytest

import convert
import stylegan_jax
from convert.reference import EXPECTED, KEYS, read_arrays, read_reference
from convert.verification import compare, compare_outputs

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Returns a function that converts a fixture once and gives (source, checkpoint)."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def convert_once(name):
        if not (folder / name).exists():
            convert.convert(GOLDEN / name, folder / name)
        return GOLDEN / name, folder / name

    return convert_once


def outputs_of(name):
    """Returns what a fixture holds of the original's inputs and outputs, by the keys of a reference."""
    golden = np.load(GOLDEN / f"{pathlib.Path(name).stem}.npz")
    found = {"z": golden["in/z"], "image": golden["f32/img_const"]}
    found |= {"d_image": golden["in/imgD"], "logits": golden["f32/logits_imgD"]}
    labels = {"c": golden["in/c"], "d_c": golden["in/cD"]} if "in/c" in golden else {}
    return golden, found | labels


def saved(path, **arrays):
    """Saves the arrays that are not None and returns the path."""
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_outputs_of_the_original_agree(converted, tmp_path):
    """Images from z and from ws, in both layouts, with and without noise, truncated, and logits; or it is said why."""
    source, checkpoint = converted("sg2_base.pkl")
    golden, own = outputs_of("sg2_base.pkl")
    found = convert.verify(source, checkpoint, reference=saved(tmp_path / "own.npz", **own))
    assert found.agrees and found.same_file and found.problems == found.estimated == ()
    assert [row.differing for row in (*found.tensors, *found.renders)] == [0] * (len(found.tensors) + 3)
    stored = stylegan_jax.load(checkpoint)
    arrays = stylegan_jax.parameters.to_arrays
    networks = stored.generator, stored.discriminator
    sizes = [int(np.size(value)) for network in networks for value in arrays(network).values()]
    assert sum(row.values for row in found.tensors) == sum(sizes)
    assert [row.name for row in found.tensors][:3] == [
        "G_ema mapping",
        "G_ema synthesis/resample_filter",
        "G_ema synthesis/b4",
    ]
    assert [row.name for row in found.reference] == ["reference image", "reference logits"]
    assert 0 < max(row.relative for row in found.reference) < 2e-5
    assert found.report().splitlines()[-1].startswith("all agree: ")

    swapped = golden["f32/img_const"][::-1]
    silent = golden["f32/img_wplus_none"]
    cases = {  # name: (arrays, whether they agree)
        "truncated": (dict(z=own["z"], image=golden["f32/img_psi0.7_const"], truncation_psi=0.7), True),
        "not truncated": (dict(z=own["z"], image=golden["f32/img_psi0.7_const"]), False),
        "silent, channels last": (dict(w=golden["in/wplus"], image=np.moveaxis(silent, 1, 3), noise_mode="none"), True),
        "other noise": (dict(ws=golden["in/wplus"], image=silent, noise_mode="const"), False),
        "swapped images": (dict(z=own["z"], image=swapped, noise_mode="const"), False),
        "swapped logits": (dict(d_image=own["d_image"], logits=own["logits"][::-1]), False),
    }
    for name, (arrays, agrees) in cases.items():
        given = read_reference(saved(tmp_path / "case.npz", **arrays), stored)
        (row,) = compare_outputs(given, stored)
        assert row.agrees is agrees and (row.relative < 2e-5) is agrees, name
        # The figure is the same whatever counts as agreement.
        (loose,) = compare_outputs(given, stored, tolerance=1e3)
        assert loose.agrees and loose.relative == row.relative, name
    found = convert.verify(source, checkpoint, reference=tmp_path / "case.npz")
    assert found.problems[0].startswith("reference logits: 8 of 8 values differ") and len(found.problems) == 1
    assert "DIFFERS" in found.report().splitlines()[-1] and not found.agrees


@pytest.mark.parametrize("name", ["sg2_odd.pkl", pytest.param("sg3_t.pkl", marks=pytest.mark.slow)])
def test_outputs_of_other_networks_agree(name, converted, tmp_path):
    """With labels for both networks; and StyleGAN3."""
    model = stylegan_jax.load(converted(name)[1])
    golden, own = outputs_of(name)
    own = dict(own, image=golden["f32/img_psi0.7_const"], truncation_psi=0.7)
    rows = compare_outputs(read_reference(saved(tmp_path / "own.npz", **own), model), model)
    assert [row.agrees for row in rows] == [True, True] and max(row.relative for row in rows) < 2e-5
    if "c" in own:
        other = saved(tmp_path / "other.npz", **(own | {"c": own["c"][:, ::-1], "d_c": own["d_c"][:, ::-1]}))
        assert [row.agrees for row in compare_outputs(read_reference(other, model), model)] == [False, False]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A converted network of 8 pixels: (source, checkpoint, model)."""
    source, checkpoint = GOLDEN / "bad" / "ok_tiny.pkl", tmp_path_factory.mktemp("tiny") / "model"
    return source, checkpoint, convert.convert(source, checkpoint)


def changed(model, path, **networks):
    """Saves a copy of `model` with arrays `{name: array}` of some networks replaced, and returns the path."""
    built = {}
    for kind, arrays in networks.items():
        network = getattr(model, kind)
        values = {**stylegan_jax.parameters.to_arrays(network), **arrays}
        built[kind] = type(network).from_arrays(network.config, values)
    stylegan_jax.save(path, dataclasses.replace(model, **built))
    return path


def test_changed_weights_are_named(tiny, tmp_path):
    """One value a bit away is found; so are another configuration, a lost network and another source."""
    source, _, model = tiny
    weight = np.array(model.generator.synthesis.b8.conv0.weight[...])
    weight[0, 0, 0, 0] = np.nextafter(weight[0, 0, 0, 0], np.float32(9))
    bias = np.full_like(model.discriminator.b4.fc.bias[...], np.nan)
    path = changed(
        model,
        tmp_path / "values",
        generator={"synthesis/b8/conv0/weight": weight},
        discriminator={"b4/fc/bias": bias},
    )
    found = convert.verify(source, path)
    assert found.problems[0].startswith(f"G_ema synthesis/b8/conv0/weight: 1 of {weight.size:,} values differ")
    assert found.problems[1].startswith(f"D b4/fc/bias: {bias.size} of {bias.size} values differ, by inf")
    assert [row.name for row in found.tensors if not row.agrees] == ["G_ema synthesis/b8", "D b4"]
    assert [row.name for row in found.renders if not row.agrees] == ["logits"]
    assert "2 problems" not in found.report() and found.report().endswith("3 problems")

    generator = model.generator
    config = dataclasses.replace(generator.config, activation="relu")
    other = type(generator).from_arrays(config, stylegan_jax.parameters.to_arrays(generator))
    stylegan_jax.save(tmp_path / "config", dataclasses.replace(model, generator=other, discriminator=None))
    found = convert.verify(source, tmp_path / "config")
    assert found.problems == (
        "G_ema has activation 'lrelu' in the file, 'relu' in the checkpoint",
        "the checkpoint lacks the discriminator, unlike its provenance",
    )
    assert found.renders == ()

    provenance = {**model.provenance, "sha256": "0" * 64}
    stylegan_jax.save(tmp_path / "copied", dataclasses.replace(model, provenance=provenance))
    found = convert.verify(source, tmp_path / "copied")
    assert found.agrees and not found.same_file and "another file" in found.report()


def test_another_source_is_refused_or_differs(tiny, tmp_path):
    """A checkpoint that was not converted, and a source without its networks."""
    source, checkpoint, model = tiny
    found = convert.verify(GOLDEN / "sg2_odd.pkl", checkpoint)
    assert not found.agrees and not found.same_file and found.renders == ()
    assert any("has widths" in text for text in found.problems)
    stylegan_jax.save(tmp_path / "trained", dataclasses.replace(model, provenance={}))
    with pytest.raises(convert.ConversionError, match="was not converted"):
        convert.verify(source, tmp_path / "trained")
    with pytest.raises(convert.ConversionError, match="'D' is not there"):
        provenance = {**model.provenance, "networks": ["G_ema", "D"]}
        stylegan_jax.save(tmp_path / "both", dataclasses.replace(model, provenance=provenance))
        convert.verify(GOLDEN / "ros1_running_zip.model", tmp_path / "both")
    with pytest.raises(convert.ConversionError, match="does not exist"):
        convert.verify(source, tmp_path / "nothing")
    with pytest.raises(convert.ConversionError, match="tolerance"):
        convert.verify(source, checkpoint, tolerance=float("nan"))


def test_what_a_file_lacks_is_estimated(tmp_path):
    """A StyleGAN1 file has neither a mean of w nor noise maps: both are listed, references that need them refused."""
    source, path = GOLDEN / "ros1_train_step6.model", tmp_path / "model"
    model = convert.convert(source, path, step=1)
    maps = {f"synthesis/{name}/noise_const" for name in model.generator.synthesis.noise_shapes()}
    average = {"mapping/w_avg": np.ones_like(model.generator.mapping.w_avg[...])}
    found = convert.verify(source, changed(model, tmp_path / "other", generator=average))
    assert found.agrees and set(found.estimated) == {f"G_ema {name}" for name in maps | set(average)}
    z, image = np.zeros((1, model.generator.config.z_dim), np.float32), np.zeros((1, 3, 8, 8), np.float32)
    for options, reason in ((dict(), "noise maps"), (dict(truncation_psi=0.5, noise_mode="none"), "mean of w")):
        with pytest.raises(convert.ConversionError, match=f"needs (the )?{reason}"):
            convert.verify(source, path, reference=saved(tmp_path / "own.npz", z=z, image=image, **options))


def test_the_command_ends_with_the_verdict(tiny, tmp_path, run_commands):
    """Exit status 0 for agreement, 1 for a difference or an error; the last line of the table is the verdict."""
    source, checkpoint, model = tiny
    bias = np.array(model.generator.mapping.fc0.bias[...]) + 1
    other = changed(model, tmp_path / "other", generator={"mapping/fc0/bias": bias})
    wrong = saved(tmp_path / "wrong.npz", latents=np.zeros(3))
    commands = [
        ["verify", str(source), str(checkpoint)],
        ["verify", str(source), str(other)],
        ["verify", str(source), str(checkpoint), f"--reference={wrong}"],
        ["verify", str(source)],
    ]
    good, different, refused, usage = run_commands("convert", commands, tmp_path)
    assert good[0] == 0 and good[1].splitlines()[-1].startswith("all agree: ") and good[2] == ""
    assert different[0] == 1 and "DIFFERS" in different[1].splitlines()[-1]
    assert "problem: G_ema mapping/fc0/bias" in different[1]
    assert refused[0] == 1 and refused[1] == "" and refused[2].count("\n") == 1
    assert str(wrong) in refused[2] and EXPECTED in refused[2]
    assert usage[0] == 1 and usage[2].startswith("usage:")


def test_deviations_are_counted():
    """Bits decide; the relative deviation is that of the largest expected value, infinite beside no number."""
    zeros, ones = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
    assert compare("equal", [(ones, ones), (np.float32(np.nan), np.float32(np.nan))]).agrees
    signed = compare("zeros", [(zeros, -zeros)])
    assert (signed.differing, signed.absolute, signed.relative, signed.agrees) == (4, 0, 0, False)
    row = compare("half", [(ones * 4, ones * 2), (ones, ones)], tolerance=0.5)
    assert (row.tensors, row.values, row.differing, row.absolute, row.relative) == (2, 8, 4, 2, 0.5) and row.agrees
    for pair in ((zeros, ones), (ones, ones * np.nan), (ones * np.inf, ones), (ones * np.nan, ones)):
        assert not compare("never", [pair], tolerance=1e9).agrees


MODEL = types.SimpleNamespace(
    generator=types.SimpleNamespace(
        config=types.SimpleNamespace(z_dim=5, c_dim=0, num_ws=4, w_dim=6, resolution=8, image_channels=3)
    ),
    discriminator=types.SimpleNamespace(config=types.SimpleNamespace(c_dim=2, resolution=8, image_channels=3)),
)
GENERATED = {"z": np.ones((2, 5)), "image": np.ones((2, 3, 8, 8))}
JUDGED = {"d_image": np.ones((3, 8, 8, 3), np.float16), "logits": np.ones((3, 1)), "d_c": np.ones((3, 2))}


def test_a_reference_is_laid_out_as_here(tmp_path):
    """Both layouts of images give the same, scalars may be arrays of one value."""
    path = saved(tmp_path / "own.npz", **GENERATED, **JUDGED, truncation_psi=np.array([0.5]), noise_mode="none")
    found = read_reference(path, MODEL)
    assert found.image.shape == (2, 8, 8, 3) and found.d_image.shape == (3, 8, 8, 3) and found.logits.shape == (3,)
    assert found.truncation_psi == 0.5 and found.noise_mode == "none" and found.ws is found.c is None
    assert found.d_image.dtype == found.z.dtype == np.float32


BAD = {
    "unknown key": (dict(latents=np.ones(3)), "latents"),
    "nothing": (dict(truncation_psi=1.0), "neither image nor logits"),
    "image alone": (dict(z=None), "no latents"),
    "latents alone": (dict(image=None, **JUDGED), "no image"),
    "two latents": (dict(ws=np.ones((2, 4, 6))), "z and ws"),
    "z of another width": (dict(z=np.ones((2, 6))), r"expected \[n, 5\]"),
    "no samples": (dict(z=np.ones((0, 5)), image=np.ones((0, 3, 8, 8))), r"expected \[n, 5\]"),
    "fewer images": (dict(image=np.ones((1, 3, 8, 8))), "as many each"),
    "image of another size": (dict(image=np.ones((2, 3, 16, 16))), r"\[n, 3, 8, 8\] or \[n, 8, 8, 3\]"),
    "bytes": (dict(image=np.ones((2, 3, 8, 8), np.uint8)), "floating-point"),
    "not finite": (dict(z=np.full((2, 5), np.nan)), "finite"),
    "labels": (dict(c=np.ones((2, 2))), "takes labels"),
    "psi of ws": (dict(z=None, ws=np.ones((2, 4, 6)), truncation_psi=0.5), "belongs to z"),
    "psi of two": (dict(truncation_psi=np.ones(2)), "expected one value"),
    "random noise": (dict(noise_mode="random"), "'const' or 'none'"),
    "noise as a number": (dict(noise_mode=1), "expected one value"),
    "logits alone": (dict(logits=np.ones(2)), "d_image is missing"),
    "labels lost": (JUDGED | dict(d_c=None), "d_c is missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_reference_says_what_is_expected(name, tmp_path):
    """Keys, shapes and types that do not fit give an error that names the file and what should be there."""
    arrays, reason = BAD[name]
    given = GENERATED if name != "nothing" else {}
    with pytest.raises(convert.ConversionError, match=reason) as caught:
        read_reference(saved(tmp_path / "bad.npz", **(given | arrays)), MODEL)
    assert caught.value.source == str(tmp_path / "bad.npz")


def header(text, size=0):
    """Returns an npy file with this header and `size` bytes of data."""
    body = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body + bytes(size)


def pickled():
    stream = io.BytesIO()
    np.save(stream, np.array([{}], dtype=object), allow_pickle=True)
    return stream.getvalue()


HOSTILE = {
    "pickled objects": (["z"], pickled()),
    "claims a terabyte": (["z"], header("{'descr': '<f4', 'fortran_order': False, 'shape': (250000000000,), }")),
    "claims a negative size": (["z"], header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -4), }", 16)),
    "runs code": (["z"], header("{'descr': __import__('os').system('true'), 'shape': (), 'fortran_order': 0}")),
    "a record": (["z"], header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", 4)),
    "another version": (["z"], b"\x93NUMPY\x09\x00" + bytes(80)),
    "no array": (["z"], b"hello"),
    "twice the same": (["z", "z"], header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", 4)),
    "many arrays": (
        [f"a{i}" for i in range(len(KEYS) + 1)],
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", 4),
    ),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_arrays_are_refused(name, tmp_path):
    """Nothing is executed, nothing allocated by what a header claims."""
    members, content = HOSTILE[name]
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        for member in members:
            archive.writestr(f"{member}.npy", content)
    with pytest.raises(convert.ConversionError):
        read_arrays(tmp_path / "bad.npz")


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    """The sizes in the archive's directory are added up before anything is unpacked; other files are named as such."""
    monkeypatch.setattr("convert.reference.MOST_BYTES", 10_000)
    np.savez_compressed(tmp_path / "bomb.npz", z=np.zeros(4000, np.float32))
    with pytest.raises(convert.ConversionError, match="more than"):
        read_arrays(tmp_path / "bomb.npz")
    (tmp_path / "text.npz").write_text(json.dumps({"z": [1]}))
    for path, reason in ((tmp_path / "text.npz", "no readable npz"), (tmp_path / "none.npz", "does not exist")):
        with pytest.raises(convert.ConversionError, match=reason):
            read_arrays(path)
    with pytest.raises(convert.ConversionError, match="no readable npz"):
        read_arrays(tmp_path)
