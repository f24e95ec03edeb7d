# SPDX-License-Identifier: Apache-2.0
"""The one checkpoint format: an orbax directory of flat named arrays, with configs and provenance as metadata.

Arrays are stored as `generator/synthesis/b64/conv0/weight` and so on, and always restored against the names and shapes
that the stored config implies.
"""

import dataclasses
import hashlib
import importlib.metadata
import os
import pathlib
import secrets
import shutil
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
from flax import nnx
from orbax.checkpoint import v1 as ocp

from stylegan_jax import dcgan, latents, parameters, stylegan1, stylegan1_tensorflow, stylegan2, stylegan3
from stylegan_jax.classifiers import celebahq, convolutional, resnet
from stylegan_jax.encoders import encoding, linear, masked, single_head, style
from stylegan_jax.features import alexnet, arcface, inception, judge, lpips, squeezenet, vgg
from stylegan_jax.generator import StyleGenerator

FORMAT = "stylegan_jax"
FORMAT_VERSION = 1
PRETRAINED = pathlib.Path(__file__).parent / "pretrained"
# The generators in PRETRAINED, by the names that stand for them; the first is the demo generator.
SHIPPED = ("faces64", "faces32", "tiny32", "dcgan64")
GENERATOR_HELP = f"Checkpoint directory, or one that is shipped: {', '.join(SHIPPED)}; by default {SHIPPED[0]}."
DEMO = PRETRAINED / SHIPPED[0]
CLASSIFIER = PRETRAINED / "teeth64"  # the classifier that is asked where no other is named
ENCODER = "encoder"

_KINDS = {
    "stylegan1.Generator": (stylegan1.Generator, stylegan1.GeneratorConfig),
    "stylegan1.Discriminator": (stylegan1.Discriminator, stylegan1.DiscriminatorConfig),
    "stylegan1_tensorflow.Generator": (stylegan1_tensorflow.Generator, stylegan1_tensorflow.GeneratorConfig),
    "stylegan1_tensorflow.Discriminator": (
        stylegan1_tensorflow.Discriminator,
        stylegan1_tensorflow.DiscriminatorConfig,
    ),
    "stylegan2.Generator": (stylegan2.Generator, stylegan2.GeneratorConfig),
    "stylegan2.Discriminator": (stylegan2.Discriminator, stylegan2.DiscriminatorConfig),
    "stylegan3.Generator": (stylegan3.Generator, stylegan3.GeneratorConfig),
    "dcgan.Generator": (dcgan.Generator, dcgan.GeneratorConfig),
    "dcgan.Discriminator": (dcgan.Discriminator, dcgan.DiscriminatorConfig),
    "judge.Judge": (judge.Judge, judge.JudgeConfig),
    "vgg.Vgg": (vgg.Vgg, vgg.VggConfig),
    "alexnet.AlexNet": (alexnet.AlexNet, alexnet.AlexNetConfig),
    "squeezenet.SqueezeNet": (squeezenet.SqueezeNet, squeezenet.SqueezeNetConfig),
    "lpips.Lpips": (lpips.Lpips, lpips.LpipsConfig),
    "arcface.ArcFace": (arcface.ArcFace, arcface.ArcFaceConfig),
    "inception.Inception": (inception.Inception, inception.InceptionConfig),
    "resnet.AttributeResNet": (resnet.AttributeResNet, resnet.AttributeResNetConfig),
    "celebahq.CelebaHqClassifier": (celebahq.CelebaHqClassifier, celebahq.CelebaHqConfig),
    "convolutional.ConvolutionalClassifier": (
        convolutional.ConvolutionalClassifier,
        convolutional.ConvolutionalConfig,
    ),
    "masked.MaskedEncoder": (masked.MaskedEncoder, masked.MaskedEncoderConfig),
    "linear.LinearEncoder": (linear.LinearEncoder, linear.LinearEncoderConfig),
    "style.StyleEncoder": (style.StyleEncoder, style.StyleEncoderConfig),
    "single_head.SingleHeadEncoder": (single_head.SingleHeadEncoder, single_head.SingleHeadEncoderConfig),
}

Network = TypeVar("Network", bound=nnx.Module)


def register(kind: type[nnx.Module], config: type) -> None:
    """Lets networks `kind(config, rngs=...)` of another package be stored; `config` is a dataclass of plain values.

    It is called where the class is defined, so that whoever can name the class can load it.
    """
    _KINDS[f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"] = kind, config


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, of another format, or in the way."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A generator with what belongs to it.

    `encoder` says which latents an image has (`stylegan_jax.encoders.encode`); it is stored beside the generator, not
    with it, and has a content hash of its own, `encoder_hash`. `provenance` is a JSON-like dictionary (source, licence,
    training); `content_hash` is the sha256 of all arrays with their names, and `path` the directory, both known for a
    model that was loaded.
    """

    generator: StyleGenerator
    discriminator: nnx.Module | None = None
    w_statistics: latents.WStatistics | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    content_hash: str | None = None
    encoder: encoding.Encoder | None = None
    encoder_hash: str | None = None
    path: pathlib.Path | None = None

    @property
    def resolution(self) -> int:
        """Image height and width in pixels."""
        return self.generator.resolution


def _kind_name(network: nnx.Module) -> str:
    for name, (kind, _) in _KINDS.items():
        if type(network) is kind:
            return name
    raise CheckpointError(f"cannot store a {type(network).__name__}; known: {', '.join(_KINDS)}")


def _networks(model: Model) -> dict[str, nnx.Module]:
    found = {"generator": model.generator, "discriminator": model.discriminator}
    return {name: network for name, network in found.items() if network is not None}


def _arrays(networks: Mapping[str, nnx.Module]) -> dict[str, np.ndarray]:
    flat = {}
    for name, network in networks.items():
        flat.update({f"{name}/{k}": np.asarray(v) for k, v in parameters.to_arrays(network).items()})
    return flat


def _statistics(model: Model) -> dict[str, np.ndarray]:
    if model.w_statistics is None:
        return {}
    return {f"w_statistics/{part}": np.asarray(array) for part, array in model.w_statistics._asdict().items()}


def _content_hash(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def file_sha256(path: str | os.PathLike) -> str:
    """Returns the hexadecimal digest of a file's contents."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def library_versions() -> dict[str, str]:
    """Returns the versions of this package and of the libraries that a result depends on."""
    names = ("stylegan_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def replace_directory(partial: pathlib.Path, path: pathlib.Path) -> None:
    """Moves the finished directory `partial` to `path`, putting aside and then removing what stood there."""
    if not path.exists():
        os.replace(partial, path)
        return
    old = path.with_name(f".{path.name}.old-{secrets.token_hex(4)}")
    os.replace(path, old)
    os.replace(partial, path)
    shutil.rmtree(old, ignore_errors=True)


def save(path: str | os.PathLike, model: Model, *, overwrite: bool = False) -> pathlib.Path:
    """Writes `model` to the directory `path`, whole or not at all.

    Args:
        path: destination directory.
        model: what to store.
        overwrite: replace what is there; without it an existing path is an error.

    Returns:
        The absolute path.

    Raises:
        CheckpointError: where the path exists, is something other than a checkpoint, or cannot be written.
    """
    return _write(path, _networks(model), _statistics(model), model.provenance, overwrite=overwrite)


def save_network(
    path: str | os.PathLike, network: nnx.Module, *, provenance: Mapping[str, Any], overwrite: bool = False
) -> pathlib.Path:
    """Writes a network that stands alone (a judge) to the directory `path`; arguments and errors are those of `save`.

    `provenance` is a JSON-like dictionary.
    """
    name = _kind_name(network).split(".")[0]
    return _write(path, {name: network}, {}, provenance, overwrite=overwrite)


def _own_process() -> ocp.Context:
    """Returns the settings by which orbax waits for no other process: of a distributed run, each reads its own."""
    context, index = ocp.Context(), jax.process_index()
    context.multiprocessing.primary_host = index
    context.multiprocessing.active_processes = {index}
    context.multiprocessing.barrier_sync_key_prefix = f"process_{index}"
    return context


def _writing() -> ocp.Context:
    # Nothing changes the arrays while they are written, so they need not be copied first. Compressed, they would all
    # lie in memory a second time, for files of weights that become 8 % smaller.
    context = ocp.Context()
    context.memory.deepcopy_host_arrays = False
    context.array.saving.use_compression = False
    return context


def _write(
    path: str | os.PathLike,
    networks: Mapping[str, nnx.Module],
    others: Mapping[str, np.ndarray],
    provenance: Mapping[str, Any],
    *,
    overwrite: bool,
) -> pathlib.Path:
    path = pathlib.Path(os.path.abspath(path))
    if path.exists() and not overwrite:
        raise CheckpointError(f"{path} exists already; choose another destination or pass --overwrite")
    if path.exists() and not (path / "_CHECKPOINT_METADATA").is_file():
        raise CheckpointError(f"{path} is no checkpoint, so it is not overwritten; choose another destination")
    arrays = _arrays(networks) | dict(others)
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "networks": {
            name: {"kind": _kind_name(network), "config": dataclasses.asdict(network.config)}
            for name, network in networks.items()
        },
        "dtypes": {name: array.dtype.name for name, array in arrays.items()},
        "content_hash": _content_hash(arrays),
        "provenance": dict(provenance),
        "versions": library_versions(),
    }
    partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _writing():
            ocp.save(partial, arrays, custom_metadata=metadata)
        # Orbax writes the absolute path into its marker; a checkpoint that is handed on should not tell it.
        (partial / "commit_success.txt").write_text("committed\n", encoding="utf-8")
        replace_directory(partial, path)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return path


def info(path: str | os.PathLike) -> dict[str, Any]:
    """Returns the metadata of the checkpoint at `path`: networks, configs, provenance, versions, content hash.

    Raises:
        CheckpointError: where there is none, or it is of another format.
    """
    path = pathlib.Path(os.path.abspath(path))
    if not path.is_dir():
        what = (
            "is a file, not a checkpoint directory; convert it with `python -m convert`"
            if path.exists()
            else ("does not exist")
        )
        raise CheckpointError(f"{path} {what}")
    try:
        with _own_process():
            metadata = ocp.metadata(path).custom_metadata
    except Exception as error:  # orbax raises many kinds for a directory that is not its own
        raise CheckpointError(f"{path} is not a readable checkpoint ({type(error).__name__})") from error
    if not isinstance(metadata, Mapping) or metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a {FORMAT} checkpoint; convert the original with `python -m convert`")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {metadata.get('format_version')}, this version reads {FORMAT_VERSION}"
        )
    return dict(metadata)


def _config(kind: type, stored: Mapping[str, Any]) -> Any:
    fields = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(stored) - fields)
    if unknown:
        raise CheckpointError(f"config has unknown fields: {', '.join(unknown)}; written by a newer version?")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()})


def _sharding() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _located(path: str | os.PathLike | None) -> pathlib.Path:
    """Returns where a checkpoint lies: a directory, the shipped generator of that name, or the demo model for None."""
    if path is None:
        return DEMO
    if os.fspath(path) in SHIPPED and not os.path.exists(path):
        return PRETRAINED / path
    return pathlib.Path(os.path.abspath(path))


def load(path: str | os.PathLike | None = None, *, bfloat16_from: int | None = None) -> Model:
    """Returns the model stored at `path`, in the dtypes stored, with the encoder that lies in its folder, if any.

    Args:
        path: a checkpoint directory, or the name of a generator that comes with the package (`SHIPPED`) where there
            is no such directory; None means the demo model.
        bfloat16_from: blocks of at least this resolution compute in bfloat16 (None: as stored, by default none).

    Raises:
        CheckpointError: where the checkpoint is missing, damaged or of another kind.
    """
    path = _located(path)
    metadata = info(path)
    kinds = _network_kinds(path, metadata)
    if "generator" not in kinds:
        raise CheckpointError(f"{path} holds {', '.join(kinds) or 'no network'}; a generator is needed")
    if bfloat16_from is not None:
        for _, config in kinds.values():
            if not hasattr(config, "bfloat16_from"):
                raise CheckpointError(f"{path} holds a network that computes in float32 only; leave out bfloat16_from")
        kinds = {
            name: (kind, dataclasses.replace(config, bfloat16_from=bfloat16_from))
            for name, (kind, config) in kinds.items()
        }
    others = {}
    if "w_statistics/mean" in metadata["dtypes"]:
        w_dim = kinds["generator"][1].w_dim
        others = {"w_statistics/mean": (w_dim,), "w_statistics/covariance": (w_dim, w_dim)}
    networks, arrays = _read_networks(path, metadata, kinds, others)
    has_statistics = "w_statistics/mean" in arrays
    statistics = (
        [jnp.asarray(arrays[f"w_statistics/{part}"]) for part in latents.WStatistics._fields]
        if has_statistics
        else None
    )
    model = Model(
        generator=networks["generator"],
        discriminator=networks.get("discriminator"),
        w_statistics=latents.WStatistics(*statistics) if has_statistics else None,
        provenance=metadata["provenance"],
        content_hash=metadata["content_hash"],
        path=path,
    )
    return with_encoder(model, path / ENCODER) if has_encoder(path) else model


def has_encoder(path: str | os.PathLike | None = None) -> bool:
    """Returns whether an encoder lies beside the model at `path` (None: the demo model)."""
    return (_located(path) / ENCODER).is_dir()


def with_encoder(model: Model, path: str | os.PathLike) -> Model:
    """Returns `model` with the encoder stored at `path`, which must have been trained for its generator.

    Raises:
        CheckpointError: where the encoder is missing, damaged, or of another generator.
    """
    encoder, encoder_hash = load_network(path, encoding.Encoder)
    trained_for = info(path)["provenance"].get("generator")
    if trained_for != model.content_hash:
        raise CheckpointError(
            f"{path} is an encoder of the generator {str(trained_for)[:12]}, not of {str(model.content_hash)[:12]}; "
            "train one with `python -m inpaint train`, or convert one that was made for it"
        )
    return dataclasses.replace(model, encoder=encoder, encoder_hash=encoder_hash)


def load_network(path: str | os.PathLike, kind: type[Network] | types.UnionType) -> tuple[Network, str]:
    """Returns a network stored by `save_network`, which must be of class `kind` (or one of a union), and its hash.

    Raises:
        CheckpointError: where the checkpoint is missing, damaged or of another kind.
    """
    path = pathlib.Path(os.path.abspath(path))
    metadata = info(path)
    kinds = _network_kinds(path, metadata)
    wanted = typing.get_args(kind) or (kind,)
    if len(kinds) != 1 or not all(found in wanted for found, _ in kinds.values()):
        names = " or ".join(one.__name__ for one in wanted)
        raise CheckpointError(f"{path} holds {', '.join(kinds) or 'no network'}; a {names} is needed")
    networks, _ = _read_networks(path, metadata, kinds, {})
    (network,) = networks.values()
    return network, metadata["content_hash"]


def _network_kinds(path: pathlib.Path, metadata: Mapping[str, Any]) -> dict[str, tuple[type, Any]]:
    built = {}
    for name, entry in metadata["networks"].items():
        if entry["kind"] not in _KINDS:
            raise CheckpointError(f"{path}: {name} is a {entry['kind']}; this version knows {', '.join(_KINDS)}")
        kind, config_kind = _KINDS[entry["kind"]]
        built[name] = kind, _config(config_kind, entry["config"])
    return built


def _read_networks(
    path: pathlib.Path,
    metadata: Mapping[str, Any],
    kinds: Mapping[str, tuple[type, Any]],
    others: Mapping[str, tuple[int, ...]],
) -> tuple[dict[str, nnx.Module], dict[str, np.ndarray]]:
    """Returns the networks, and all arrays; `others` are names and shapes of arrays beside the networks'."""
    shapes = {f"{name}/{k}": v.shape for name, spec in kinds.items() for k, v in parameters.abstract(*spec).items()}
    arrays = _restore(path, shapes | dict(others), metadata)
    networks = {}
    for name, (kind, config) in kinds.items():
        own = {k.removeprefix(f"{name}/"): v for k, v in arrays.items() if k.startswith(f"{name}/")}
        networks[name] = parameters.fill(kind, config, own)
    return networks, arrays


def _restore(path: pathlib.Path, shapes: Mapping[str, tuple], metadata: Mapping[str, Any]) -> dict[str, np.ndarray]:
    # As numpy: what orbax returns is committed to a device, and jitted functions would compile once for committed and
    # once for uncommitted arguments.
    stored = metadata["dtypes"]
    if set(stored) != set(shapes):
        different = sorted(set(stored) ^ set(shapes))
        raise CheckpointError(f"{path}: stored arrays do not match the stored config: {', '.join(different[:10])}")
    wanted = {
        name: jax.ShapeDtypeStruct(shape, np.dtype(stored[name]), sharding=_sharding())
        for name, shape in shapes.items()
    }
    try:
        with _own_process():
            arrays = ocp.load(path, wanted)
    except Exception as error:  # orbax and tensorstore raise many kinds for damaged files
        reason = str(error).strip().splitlines()
        raise CheckpointError(f"{path} is damaged: {reason[0] if reason else type(error).__name__}") from error
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    narrowed = [name for name, array in arrays.items() if array.dtype != np.dtype(stored[name])]
    if narrowed:
        raise CheckpointError(f"{path} stores {stored[narrowed[0]]}, which JAX reads only with jax_enable_x64 set")
    if _content_hash(arrays) != metadata["content_hash"]:
        raise CheckpointError(f"{path} is damaged: its arrays do not have the recorded sha256")
    return arrays


def _named_leaves(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def save_state(path: str | os.PathLike, tree: Any, *, metadata: Mapping[str, Any]) -> None:
    """Writes the arrays of a pytree (the state of a run) to the directory `path`, replacing it whole or not at all."""
    path = pathlib.Path(os.path.abspath(path))
    partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The newer interface asks every process of a distributed run to save the same thing at the same time.
        index = jax.process_index()
        alone = orbax.checkpoint.options.MultiprocessingOptions(
            primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process_{index}"
        )
        handler = orbax.checkpoint.PyTreeCheckpointHandler(multiprocessing_options=alone)
        with orbax.checkpoint.Checkpointer(handler, multiprocessing_options=alone) as writer:
            facts = {"format": f"{FORMAT} state", **metadata}
            # As numpy, since arrays of one process's devices are refused where there are others; without those of no
            # values, which orbax refuses.
            leaves = {name: np.asarray(leaf) for name, leaf in _named_leaves(tree).items() if np.size(leaf)}
            writer.save(partial, leaves, custom_metadata=facts)
        replace_directory(partial, path)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def state_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """Returns the metadata that `save_state` stored; raises CheckpointError where there is no state."""
    try:
        with _own_process():
            return dict(ocp.metadata(pathlib.Path(os.path.abspath(path))).custom_metadata)
    except Exception as error:  # orbax raises many kinds
        raise CheckpointError(f"{path}: no state of this kind ({error})") from error


def load_state(path: str | os.PathLike, like: Any) -> tuple[Any, dict[str, Any]]:
    """Returns the pytree stored by `save_state`, of the structure, shapes and dtypes of `like`, and its metadata.

    Raises:
        CheckpointError: where the state is missing, damaged or of another structure.
    """
    path = pathlib.Path(os.path.abspath(path))
    # As numpy arrays: JAX's would be made in a thread that does not know of an `enable_x64` around this call.
    wanted = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in _named_leaves(like).items()}
    try:
        with _own_process():
            metadata = ocp.metadata(path).custom_metadata
            empty = {name: leaf for name, leaf in wanted.items() if not leaf.size}
            leaves = ocp.load(path, {name: leaf for name, leaf in wanted.items() if leaf.size}) | empty
    except Exception as error:  # orbax and tensorstore raise many kinds
        reason = str(error).strip().splitlines()
        raise CheckpointError(f"{path}: no state of this kind ({reason[0] if reason else error})") from error
    # Orbax fits numpy arrays into other shapes without a word.
    for name, leaf in wanted.items():
        if leaves[name].shape != leaf.shape or leaves[name].dtype != leaf.dtype:
            found = f"{leaves[name].dtype} {list(leaves[name].shape)}"
            wanted_here = f"{leaf.dtype} {list(leaf.shape)}"
            raise CheckpointError(f"{path}: no state of this kind ({name} is {found}, expected {wanted_here})")
    values = [jnp.asarray(leaves[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), values), dict(metadata)
