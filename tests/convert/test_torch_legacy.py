# SPDX-License-Identifier: Apache-2.0
"""Files of torch.save: read exactly in both formats; damaged, hostile and impossible ones refused, nothing run."""

import hashlib
import json
import pathlib
import pickle
import subprocess
import sys
import zipfile

import pytest

from convert import ConversionError, rosinality
from convert.torch_legacy import is_torch_file, read_torch_file
from convert.torchfile import LEGACY_VERSION, MAGIC, Tensor

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def read(name):
    """Returns a fixture."""
    return read_torch_file(GOLDEN / name)


def files_tensors(tree):
    """Returns {network: {source name: tensor}} under the names of the file."""
    return {k: v for k, v in tree.items() if isinstance(v, dict) and v and isinstance(next(iter(v.values())), Tensor)}


@pytest.mark.parametrize(("name", "facts"), [("ros1_train_step6.model", "ros1"), ("ros2_train_zip.pt", None)])
def test_every_tensor_is_read_exactly(name, facts):
    """The old format and the zip format give the values that the original tools wrote."""
    expected = json.loads((GOLDEN / f"{facts or pathlib.Path(name).stem}.json").read_text())["tensors"]
    found = files_tensors(read(name).tree)
    assert set(found) == set(expected)
    for network, tensors in found.items():
        assert set(tensors) == set(expected[network])
        for key, fact in expected[network].items():
            array = tensors[key].read()
            assert list(array.shape) == fact["shape"], key
            assert hashlib.sha256(array.tobytes()).hexdigest().startswith(fact["sha256"]), key


def test_facts_about_a_file():
    file = read("ros2_train_zip.pt")
    data = (GOLDEN / "ros2_train_zip.pt").read_bytes()
    assert file.size == len(data) and file.sha256 == hashlib.sha256(data).hexdigest()
    assert rosinality.recognise(file.tree).training["channel_multiplier"] == 2
    assert is_torch_file(GOLDEN / "ros1_train_step6.model") and is_torch_file(GOLDEN / "ros2_train_zip.pt")
    assert not is_torch_file(GOLDEN / "ros1.json") and not is_torch_file(GOLDEN) and not is_torch_file(GOLDEN / "none")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("huge_storage_claim_zip.pt", "claims 2500000000 elements of 4 bytes, but 64 bytes are there"),
        ("truncated_legacy.pt", "claims 16 elements of 4 bytes, but 36 bytes are there"),
        ("truncated_zip.pt", "without its table of contents"),
        ("wrong_magic_legacy.pt", "expected a file of torch.save"),
        ("zip_big_endian.pt", "byte order is 'big'"),
        ("zip_bomb.pt", "is compressed or encrypted"),
        ("zip_missing_record.pt", "storage '0' has no record"),
        ("zip_os_system.pt", "asks for 'posix.system'"),
        ("empty.pkl", "the file is empty"),
        ("", "Is a directory"),
        ("none.pt", "No such file"),
    ],
)
def test_bad_files_are_refused(name, reason, tmp_path, monkeypatch):
    """Damaged and hostile files are refused and nothing in them is run."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConversionError, match=reason):
        read_torch_file(GOLDEN / "bad" / name)
    assert list(tmp_path.iterdir()) == []


def write_zip(path, value, **records):
    """Writes the zip archive of torch.save around a pickled value."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", value if isinstance(value, bytes) else pickle.dumps(value, 2))
        for name, data in records.items():
            archive.writestr(f"a/{name}", data)
    return path


def test_optimisers_of_old_torch(tmp_path):
    """torch before 1.6 names an optimiser's moments by addresses of memory; they do not matter, but must not harm."""
    value = {"state": {2**46 + 5: 1, 2**46 + 9: 2, 3: 4}, "lr": [0.5, 2**40], "size": 2**39 - 1}
    tree = read_torch_file(write_zip(tmp_path / "a.pt", value)).tree
    assert sorted(tree["state"].values()) == [1, 2, 4] and (tree["lr"][0], tree["size"]) == (0.5, 2**39 - 1)


def test_paths_become_text(tmp_path):
    value = {"opts": {"exp_dir": pathlib.PurePosixPath("/data/run"), "here": pathlib.PureWindowsPath("C:\\a\\b")}}
    tree = read_torch_file(write_zip(tmp_path / "a.pt", value)).tree
    # Whether its parts or the whole of a path are stored depends on the Python that does it.
    found = {name: text.replace("\\", "/") for name, text in tree["opts"].items()}
    assert found["exp_dir"].endswith("/data/run") and found["here"].endswith("a/b")


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_paths_of_any_python(tmp_path, module):
    """Python 3.13 names the module in which it keeps them."""
    path = f"c{module}\nPosixPath\n(X\x04\x00\x00\x00dataX\x03\x00\x00\x00runtR".encode()
    pickled = b"\x80\x02}X\x01\x00\x00\x00a" + path + b"s."
    assert read_torch_file(write_zip(tmp_path / "a.pt", pickled)).tree == {"a": "data/run"}


@pytest.mark.parametrize(
    ("value", "records", "reason"),
    [
        (pickle.dumps({}, 2) + b"more", {}, "4 bytes follow the end of the pickle"),
        (pickle.dumps({"a": "b" * 100}, 2)[:-30], {}, "ends too early: 100 bytes expected"),
        (b"\x80\x02}" + b"N0" * 250_001 + b".", {}, "more than 500000 steps"),
        (b"\x80\x02N}b.", {}, "gives a state to None, which takes none"),
        ({}, {"byteorder": b"large"}, "byte order is 'large'"),
        (b"\x80\x02cargparse\nNamespace\n)\x81K\x01b.", {}, "Namespace has a state of an unknown form"),
        (b"\x80\x02X\x00\x00\x00\x00Q.", {}, "persistent id of an unknown form"),
        (b"\x80\x02cpathlib\nPosixPath\n(K\x01tR.", {}, "a path is made of something else than names"),
    ],
)
def test_pickles_that_no_tool_writes(value, records, reason, tmp_path):
    path = write_zip(tmp_path / "a.pt", value, **records)
    with pytest.raises(ConversionError, match=reason):
        read_torch_file(path)


def test_archives_that_no_tool_writes(tmp_path):
    with zipfile.ZipFile(tmp_path / "none.pt", "w") as archive:
        archive.writestr("a/other", b"")
    with pytest.raises(ConversionError, match="no data.pkl"):
        read_torch_file(tmp_path / "none.pt")
    data = bytearray(write_zip(tmp_path / "a.pt", {}).read_bytes())
    data[data.rindex(b"PK\x01\x02") + 42] ^= 8  # the place of the record
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(ConversionError, match="not where the archive says|without its table"):
        read_torch_file(tmp_path / "a.pt")


def test_old_files_cut_or_changed(tmp_path):
    data = (GOLDEN / "ros1_train_step6.model").read_bytes()
    for changed, reason in [
        (data[:-7], "claims|holds"),
        (data[:30_000], "ends too early"),
        (data + b"more", "4 bytes follow the last storage"),
        (data.replace(b"little_endianq", b"little_endiamq", 1), "little-endian"),
    ]:
        (tmp_path / "a.model").write_bytes(changed)
        with pytest.raises(ConversionError, match=reason):
            read_torch_file(tmp_path / "a.model")


@pytest.mark.parametrize("keys", [[0], [["0"]], ["0", "0"], "0", {"0": 1}])
def test_storages_are_listed_by_their_names(keys, tmp_path):
    """A number in place of a name that looks the same is no name."""
    storage = b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01NtQ."
    head = [pickle.dumps(value, 2) for value in (MAGIC, LEGACY_VERSION, {"little_endian": True})]
    tail = (1).to_bytes(8, "little") + b"\0\0\x80?"
    path = tmp_path / "a.pt"
    path.write_bytes(b"".join([*head, storage, pickle.dumps(["0"], 2), tail]))
    assert read_torch_file(path).tree.numel == 1
    path.write_bytes(b"".join([*head, storage, pickle.dumps(keys, 2), tail]))
    with pytest.raises(ConversionError, match="the list of storages is not that of the object"):
        read_torch_file(path)


def test_reading_needs_no_jax():
    """The whole reading and checking of a file imports neither JAX nor torch."""
    code = """
import sys
from convert import rosinality, torch_legacy
file = torch_legacy.read_torch_file(sys.argv[1])
checkpoint = rosinality.recognise(file.tree)
arrays = rosinality.read_network(checkpoint, "G_ema", file_size=file.size).arrays()
print(len(arrays), [m for m in ("jax", "flax", "stylegan_jax", "torch") if m in sys.modules])
"""
    command = [sys.executable, "-c", code, str(GOLDEN / "ros2_train_zip.pt")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=GOLDEN.parents[1], check=True)
    assert done.stdout.strip() == "77 []"
