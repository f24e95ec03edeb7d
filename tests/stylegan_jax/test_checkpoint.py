# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: exact round trips, and clear errors for everything that is no whole checkpoint."""

import dataclasses
import gc
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import stylegan_jax as sg
from stylegan_jax import checkpoint, parameters

# orbax leaves coroutines behind that it never awaits when it refuses a shape or content; they meet their end in the
# gc.collect() at the end of these tests, inside the filter.
leaves_coroutines = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::RuntimeWarning"
)


def make_model(*, c_dim=0, precision=jnp.float32):
    """Returns a tiny model whose every value differs, the equally shaped ones too."""
    generator_config = sg.GeneratorConfig(widths=(5, 5), z_dim=5, w_dim=5, c_dim=c_dim, mapping_layers=3)
    discriminator_config = sg.DiscriminatorConfig(widths=(5, 5), c_dim=c_dim, mapping_layers=2)
    rng = np.random.default_rng(0)

    def build(kind, config):
        shapes = parameters.abstract(kind, config)
        arrays = {name: jnp.asarray(rng.normal(size=s.shape), precision) for name, s in shapes.items()}
        return kind.from_arrays(config, arrays)

    return sg.Model(
        build(sg.Generator, generator_config),
        discriminator=build(sg.Discriminator, discriminator_config),
        w_statistics=sg.WStatistics(*(jnp.asarray(rng.normal(size=s), precision) for s in ((5,), (5, 5)))),
        provenance={"source": "test", "numbers": [1, 2.5, None], "nested": {"licence": "none"}},
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Returns a model and the checkpoint that holds it."""
    model = make_model()
    return model, sg.save(tmp_path_factory.mktemp("stored") / "model", model)


@pytest.fixture
def copy(stored, tmp_path):
    """Returns a copy of the checkpoint to damage."""
    return pathlib.Path(shutil.copytree(stored[1], tmp_path / "copy"))


def assert_equal(one, other):
    for name in ("generator", "discriminator"):
        left, right = getattr(one, name), getattr(other, name)
        assert left.config == right.config
        left, right = parameters.to_arrays(left), parameters.to_arrays(right)
        assert list(left) == list(right)
        for key in left:
            assert left[key].dtype == right[key].dtype, key
            np.testing.assert_array_equal(left[key], right[key], err_msg=key)
    for left, right in zip(one.w_statistics, other.w_statistics, strict=True):
        np.testing.assert_array_equal(left, right)


def test_round_trip_is_exact(stored):
    """Every value comes back at its name, with configs, provenance and hash; equal shapes are not exchanged."""
    model, path = stored
    loaded = sg.load(path)
    assert_equal(loaded, model)
    assert loaded.provenance == model.provenance and loaded.resolution == 8
    assert len(loaded.content_hash) == 64 and loaded.content_hash == sg.info(path)["content_hash"]
    assert type(loaded.generator.config.widths) is tuple
    assert sg.info(path)["networks"]["generator"]["kind"] == "stylegan2.Generator"
    assert sg.info(path)["versions"]["jax"] == jax.__version__


def test_round_trip_of_a_conditional_model(tmp_path):
    """Labels' embeddings are stored too, and bfloat16 arrays stay bfloat16."""
    model = make_model(c_dim=3, precision=jnp.bfloat16)
    assert_equal(sg.load(sg.save(tmp_path / "model", model)), model)


def test_float64_stays_float64(tmp_path):
    """A model in float64 comes back in float64, bit for bit, and is no damaged one where JAX cannot read it."""
    # The setting has to be global: orbax reads in threads of its own.
    jax.config.update("jax_enable_x64", True)
    try:
        model = make_model(precision=jnp.float64)
        assert_equal(sg.load(sg.save(tmp_path / "model", model)), model)
    finally:
        jax.config.update("jax_enable_x64", False)
    with pytest.raises(sg.CheckpointError, match="stores float64, which JAX reads only with jax_enable_x64 set"):
        sg.load(tmp_path / "model")


def test_generator_alone(stored, tmp_path):
    """Discriminator and statistics may be left out."""
    model = sg.load(sg.save(tmp_path / "deep" / "model", sg.Model(stored[0].generator)))
    assert model.discriminator is None and model.w_statistics is None and model.provenance == {}


def test_equal_contents_have_equal_hashes(stored, tmp_path):
    """The hash is that of the contents: the same twice, another after one value changed."""
    model, path = stored
    first = sg.info(path)["content_hash"]
    assert sg.info(sg.save(tmp_path / "again", model))["content_hash"] == first
    generator = sg.Generator.from_arrays(
        model.generator.config,
        {k: v + (k == "mapping/fc0/bias") for k, v in parameters.to_arrays(model.generator).items()},
    )
    changed = dataclasses.replace(model, generator=generator)
    assert sg.info(sg.save(tmp_path / "changed", changed))["content_hash"] != first


def test_precision_can_be_chosen_on_loading(stored):
    """bfloat16_from changes the config of the loaded networks only."""
    model = sg.load(stored[1], bfloat16_from=8)
    assert model.generator.config.bfloat16_from == model.discriminator.config.bfloat16_from == 8
    assert sg.load(stored[1]).generator.config.bfloat16_from is None


def test_existing_path(stored, tmp_path):
    """A checkpoint is refused, or replaced with overwrite=True and nothing else left; another folder is never."""
    model, path = stored
    with pytest.raises(sg.CheckpointError, match="exists already; choose another destination or pass --overwrite"):
        sg.save(path, model)
    target = sg.save(tmp_path / "model", sg.Model(model.generator))
    sg.save(target, model, overwrite=True)
    assert_equal(sg.load(target), model)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("dear")
    with pytest.raises(sg.CheckpointError, match="photos is no checkpoint, so it is not overwritten"):
        sg.save(tmp_path / "photos", model, overwrite=True)
    assert (tmp_path / "photos" / "one.jpg").read_text() == "dear"


def test_unwritable_path(stored, tmp_path):
    """A destination below a file is refused with its name, and nothing is left."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(sg.CheckpointError, match=r"cannot write .*file"):
        sg.save(tmp_path / "file" / "model", stored[0])
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_missing_and_foreign_paths(tmp_path):
    """What is missing, a file, an empty folder or another orbax checkpoint is told apart."""
    with pytest.raises(sg.CheckpointError, match=r"nothing does not exist"):
        sg.load(tmp_path / "nothing")
    (tmp_path / "ffhq.pkl").write_bytes(b"x")
    with pytest.raises(sg.CheckpointError, match=r"ffhq.pkl is a file.*convert it with `python -m convert`"):
        sg.load(tmp_path / "ffhq.pkl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(sg.CheckpointError, match="empty is not a readable checkpoint"):
        sg.load(tmp_path / "empty")
    checkpoint.save_state(tmp_path / "state", {"a": jnp.ones(3)}, metadata={})
    with pytest.raises(sg.CheckpointError, match="state is not a stylegan_jax checkpoint"):
        sg.load(tmp_path / "state")


@leaves_coroutines
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "metadata"])
def test_damage_is_noticed(copy, damage):
    """Truncated, changed or missing files of arrays or metadata are an error that names the checkpoint."""
    # All of them, since the database behind a checkpoint leaves files that it no longer reads.
    files = [file for file in copy.rglob("d/*") if file.is_file()]
    assert files
    if damage == "metadata":
        files = [file for file in copy.rglob("*METADATA*")]
    for file in files:
        content = file.read_bytes()
        half = len(content) // 2
        if damage == "flip":
            file.write_bytes(content[:half] + bytes(255 - b for b in content[half : half + 64]) + content[half + 64 :])
        elif damage == "remove":
            file.unlink()
        else:
            file.write_bytes(content[:half])
    with pytest.raises(sg.CheckpointError, match=rf"{copy} is (damaged|not a)"):
        sg.load(copy)
    gc.collect()


def edit_metadata(path, **changes):
    """Changes the custom metadata of a checkpoint, wherever orbax keeps it."""
    for file in path.rglob("*"):
        if file.is_file() and b'"format_version"' in file.read_bytes():
            content = json.loads(file.read_text())
            content["custom_metadata"].update(changes)
            file.write_text(json.dumps(content))
            return
    raise AssertionError("no custom metadata found")


@leaves_coroutines
def test_other_versions_and_kinds(copy, stored):
    """A newer format, an unknown kind of network or field, and names that the config does not imply are told."""
    networks = sg.info(stored[1])["networks"]

    def network(**changes):
        return {**networks, "generator": {**networks["generator"], **changes}}

    config = networks["generator"]["config"]
    cases = [
        (dict(format_version=99), "has format version 99, this version reads 1"),
        (dict(format="other"), "is not a stylegan_jax checkpoint"),
        (dict(networks=network(kind="stylegan9.Generator")), "stylegan9.Generator; this version knows stylegan1"),
        (dict(networks=network(config=config | {"new": 1})), "unknown fields: new; written by a newer version"),
        (dict(networks={"discriminator": networks["discriminator"]}), "a generator is needed"),
        (dict(networks=network(config=config | {"mapping_layers": 2})), "do not match the stored config.*mapping/fc2"),
        (dict(networks=network(config=config | {"w_dim": 6})), "is damaged"),
        (dict(content_hash="0" * 64), "is damaged: its arrays do not have the recorded sha256"),
    ]
    good = sg.info(copy)
    for changes, text in cases:
        edit_metadata(copy, **(good | changes))
        with pytest.raises(sg.CheckpointError, match=text):
            sg.load(copy)
    gc.collect()
    edit_metadata(copy, **good)
    assert_equal(sg.load(copy), stored[0])


@leaves_coroutines
def test_states_round_trip(tmp_path):
    """Any pytree of arrays comes back by the names of its leaves, also those of no values; another structure or shape
    is refused."""
    tree = {"a": jnp.arange(3), "b": [jnp.ones((2, 2), jnp.bfloat16), jnp.zeros((), bool)], "none": jnp.zeros((0, 3))}
    path = tmp_path / "state"
    checkpoint.save_state(path, tree, metadata={"step": 4})
    checkpoint.save_state(path, tree, metadata={"step": 5})
    loaded, metadata = checkpoint.load_state(path, jax.tree.map(jnp.zeros_like, tree))
    assert metadata["step"] == 5 and jax.tree.structure(loaded) == jax.tree.structure(tree)
    for left, right in zip(jax.tree.leaves(loaded), jax.tree.leaves(tree), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    for like in ({"a": tree["a"]} | {"c": jnp.ones(1)}, {**tree, "a": jnp.arange(4)}):
        with pytest.raises(sg.CheckpointError, match="no state of this kind"):
            checkpoint.load_state(path, like)
    with pytest.raises(sg.CheckpointError, match="no state of this kind"):
        checkpoint.load_state(tmp_path / "nothing", tree)
    gc.collect()


def test_other_networks_are_refused(tmp_path):
    """Only known kinds of networks are stored."""
    with pytest.raises(sg.CheckpointError, match="cannot store a Linear; known: stylegan1.Generator"):
        sg.save(tmp_path / "model", sg.Model(nnx.Linear(1, 1, rngs=nnx.Rngs(0))))


def test_shipped_generators_have_names(tmp_path, monkeypatch):
    """A name stands for a shipped generator unless a directory has it; the first is the demo model."""
    monkeypatch.chdir(tmp_path)
    hashes = {name: sg.load(name).content_hash for name in checkpoint.SHIPPED}
    assert len(set(hashes.values())) == len(hashes) and sg.load().content_hash == hashes["faces64"]
    dcgan = sg.load("dcgan64")
    assert dcgan.resolution == 64 and dcgan.discriminator is not None and "UK Parliament" in str(dcgan.provenance)
    tiny = sum(file.stat().st_size for file in (checkpoint.PRETRAINED / "tiny32").rglob("*"))
    assert tiny < 2**20 and sg.load("tiny32").resolution == 32
    everything = sum(file.stat().st_size for file in checkpoint.PRETRAINED.rglob("*"))
    assert everything < 25 * 10**6
    (tmp_path / "dcgan64").mkdir()
    with pytest.raises(sg.CheckpointError, match="dcgan64"):
        sg.load("dcgan64")
