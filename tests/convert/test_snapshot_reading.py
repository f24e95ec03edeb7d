# SPDX-License-Identifier: Apache-2.0
"""The readers alone: torch storages of every kind, strides, and pickles that try to do or to cost something."""

import pickle
import struct
import time

import numpy as np
import pytest

from convert import ConversionError
from convert.numpyfile import numpy_globals
from convert.rules import Rule, assign, dense_after_4x4
from convert.snapshot import Module, read_snapshot, walk
from convert.torchfile import MAGIC, STORAGE_TYPES, Storage, Tensor, parse_storage, rebuild_tensor, torch_globals
from convert.unpickle import Work, read_pickle


def storage(values: np.ndarray, kind: str = "FloatStorage") -> Storage:
    return Storage(STORAGE_TYPES[f"torch.{kind}"], values.size, memoryview(values.tobytes()))


def legacy_stream(kind: bytes, claimed: int, stored: int, data: bytes, *, little_endian: bool = True) -> bytes:
    """Returns what torch hands to `_load_from_bytes`, written opcode by opcode."""
    identity = b"\x80\x02(X\x07\x00\x00\x00storagectorch\n" + kind + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    identity += b"\x8a\x08" + struct.pack("<q", claimed) + b"NtQ."
    system = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"short": 2}}
    head = b"".join(pickle.dumps(value, 2) for value in (MAGIC, 1001, system))
    return head + identity + pickle.dumps(["0"], 2) + struct.pack("<q", stored) + data


def read(data: bytes, allowed=None) -> object:
    return read_pickle(memoryview(data), allowed or {}, work=Work())[0]


@pytest.mark.parametrize(("kind", "dtype"), [("FloatStorage", "<f4"), ("HalfStorage", "<f2"), ("DoubleStorage", "<f8")])
def test_floating_storages_become_float32(kind, dtype):
    values = np.array([1.5, -2.25, 0.0, 65504.0], dtype)
    stream = legacy_stream(kind.encode(), 4, 4, values.tobytes())
    tensor = rebuild_tensor(parse_storage(memoryview(stream), work=Work()), 0, (4,), (1,), False, {})
    np.testing.assert_array_equal(tensor.read(), values.astype(np.float32))
    assert tensor.read().dtype == np.float32


def test_bfloat16_is_the_upper_half_of_float32():
    values = np.array([[1.5, -2.25], [3e38, 2.0**-130]], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    tensor = rebuild_tensor(storage(halves, "BFloat16Storage"), 0, (2, 2), (1, 2), False, {})
    np.testing.assert_array_equal(tensor.read(), (halves.astype(np.uint32) << 16).view(np.float32).T)


def test_a_double_too_large_is_not_finite():
    assert np.isinf(rebuild_tensor(storage(np.array([1e300]), "DoubleStorage"), 0, (), (), False, {}).read())


def test_integer_storage_is_no_weight():
    tensor = rebuild_tensor(storage(np.array([1, 2]), "LongStorage"), 0, (2,), (1,), False, {})
    with pytest.raises(ConversionError, match="LongStorage"):
        tensor.read()


def test_strides_and_offset():
    values = np.arange(120, dtype=np.float32)
    channels_last = rebuild_tensor(storage(values), 8, (2, 4, 3, 3), (36, 1, 12, 4), False, {})
    np.testing.assert_array_equal(channels_last.read(), values[8:80].reshape(2, 3, 3, 4).transpose(0, 3, 1, 2))
    assert rebuild_tensor(storage(values), 5, (), (), False, {}).read() == 5
    assert rebuild_tensor(storage(values), 0, (0, 3), (3, 1), False, {}).read().shape == (0, 3)
    one = rebuild_tensor(storage(values), 0, (4, 1, 1, 1), (1, 99, 99, 7), False, {})  # axes of size one step nowhere
    np.testing.assert_array_equal(one.read().ravel(), values[:4])


@pytest.mark.parametrize(
    ("offset", "shape", "stride", "reason"),
    [
        (0, (11,), (1,), "leaves its storage"),
        (8, (3,), (1,), "leaves its storage"),
        (0, (50000, 50000), (0, 0), "overlaps itself"),
        (0, (3, 3), (1, 1), "overlaps itself"),
        (0, (2, 3), (2, 1), "overlaps itself"),
        (0, (-2,), (1,), "none may be negative"),
        (0, (2,), (-1,), "none may be negative"),
        (-1, (2,), (1,), "none may be negative"),
        (0, (2,) * 9, (1,) * 9, "at most 8 dimensions"),
        (0, (0, 2**60), (1, 1), "impossible size"),
        (0, (2.0,), (1,), "unknown form"),
        (0, (True,), (1,), "unknown form"),
        (0, (2, 2), (1,), "unknown form"),
        (11, (0,), (1,), "leaves its storage"),
    ],
)
def test_impossible_tensors(offset, shape, stride, reason):
    with pytest.raises(ConversionError, match=reason):
        rebuild_tensor(storage(np.zeros(10, np.float32)), offset, shape, stride, False, {})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"claimed": 5}, "claims 5 elements"),
        ({"stored": 3}, "claims 4 elements"),
        ({"data": bytes(15)}, "but 15 bytes are there"),
        ({"data": bytes(17)}, "but 17 bytes are there"),
        ({"claimed": -1}, "persistent id"),
        ({"claimed": 2**62, "stored": 2**62}, "claims 4611686018427387904"),
        ({"little_endian": False}, "little-endian"),
        ({"kind": b"EvilStorage"}, "asks for 'torch.EvilStorage'"),
    ],
)
def test_damaged_storages(change, reason):
    sound = {"kind": b"FloatStorage", "claimed": 4, "stored": 4, "data": bytes(16)}
    with pytest.raises(ConversionError, match=reason):
        parse_storage(memoryview(legacy_stream(**(sound | change))), work=Work())


def test_plain_values_survive():
    value = {"a": [1, -2, 2**40, 1.5, None, True], "b": ("x" * 300, ()), "c": {}, 3: "ü"}
    for protocol in (2, 3, 4, 5):
        assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a pickle"),
        (b"(lp0\n.", "not a pickle"),
        (b"\x80\x09.", "protocol 9"),
        (b"\x80\x04", "ends too early"),
        (b"\x80\x04.", "unfinished"),
        (b"\x80\x040.", "makes no sense"),
        (b"\x80\x04h\x05.", "makes no sense"),
        (b"\x80\x04(.", "unfinished"),
        (b"\x80\x04]]R.", "makes no sense"),
        (b"\x80\x04}]Ns.", "dictionary key"),
        (b"\x80\x04})Ns.", "dictionary key"),
        (b"\x80\x04]N\x85b.", "gives a state to"),
        (b"\x80\x04I1\n.", "not one that checkpoints hold"),
        (b"\x80\x04cbuiltins\neval\n.", "asks for 'builtins.eval'"),
        (b"\x80\x04\x8c\x02os\x8c\x0bpath.system\x93.", "asks for 'os.path.system'"),
        (b"\x80\x04\x82\x01.", "not one that checkpoints hold"),
        (b"\x80\x04NQ.", "persistent id"),
        (b"\x80\x04\x8b" + struct.pack("<i", 10**9), "an integer of 1000000000 bytes"),
        (b"\x80\x04\x8e" + struct.pack("<q", -1), "ends too early"),
        (b"\x80\x04\x95" + struct.pack("<q", 100) + b"N.", "a frame of 100 bytes"),
        (b"\x80\x04c" + b"a" * 1000 + b"\nb\n.", "no end of line"),
        (b"\x80\x04\x8c\x01\xff.", "makes no sense"),
    ],
)
def test_hostile_pickles(data, reason):
    with pytest.raises(ConversionError, match=reason):
        read(data)


@pytest.mark.parametrize("body", [b"]", b"(", b"]\x94", b"C\x00", b")\x85"])
def test_work_is_bounded(body):
    begin = time.process_time()
    with pytest.raises(ConversionError, match="steps"):
        read(b"\x80\x04N" + body * 2_000_000 + b".")
    assert time.process_time() - begin < 5


def test_repeated_inner_streams_share_the_allowance():
    inner = b"\x80\x02X" + struct.pack("<I", 1_000_000) + b"a" * 1_000_000 + b"."
    blob = pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + inner
    work = Work()
    reasons = []
    for _ in range(600):
        with pytest.raises(ConversionError) as caught:
            parse_storage(memoryview(blob), work=work)
        reasons.append(str(caught.value))
    assert "little-endian" in reasons[0] and "steps" in reasons[-1]


def test_numpy_values():
    value = {"a": np.float64(2.5), "b": np.arange(6, dtype=np.int32).reshape(2, 3)}
    found = read(pickle.dumps(value, 3), numpy_globals())
    assert found["a"] == 2.5 and isinstance(found["a"], float)
    np.testing.assert_array_equal(found["b"].read(), value["b"])
    for refused in (np.array([object()]), np.zeros(3, ">f4"), np.array(["x"])):
        with pytest.raises(ConversionError):
            read(pickle.dumps(refused, 3), numpy_globals())


def test_byte_strings_of_protocol_2():
    """Before protocol 3 they are text, encoded; one text is encoded once."""
    value = np.arange(6, dtype=np.float32).reshape(2, 3) + 200
    found = read(pickle.dumps([value, value.copy()], 2), numpy_globals())
    np.testing.assert_array_equal(found[0].read(), value)
    # The same text twice: encode(text) called again gives the same bytes, not new ones.
    call = b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R"
    data = b"\x80\x02c_codecs\nencode\nq\x00X\x02\x00\x00\x00abq\x01" + call + call + b"\x87."
    _, first, second = read(b"\x80\x02" + data[2:].replace(b"q\x01h", b"q\x010h", 1), numpy_globals())
    assert first is second and bytes(first) == b"ab"
    for text in (b"\xc4\x80", b"a"):  # no character of latin-1; another coding
        coding = b"latin1" if text != b"a" else b"rot_13"
        data = b"\x80\x02c_codecs\nencode\nX" + struct.pack("<I", len(text)) + text
        data += b"X\x06\x00\x00\x00" + coding + b"\x86R."
        with pytest.raises(ConversionError):
            read(data, numpy_globals())


def test_tensor_record_in_a_pickle_names_only_stand_ins():
    assert set(torch_globals(Work())) == {
        "torch.storage._load_from_bytes",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
    }
    with pytest.raises(ConversionError, match="parameter record"):
        read(b"\x80\x02ctorch._utils\n_rebuild_parameter\n(N\x89}tR.", torch_globals(Work()))


def test_modules_without_end_are_refused():
    module = Module("Generator", {"_modules": {}, "_parameters": {}, "_buffers": {}})
    module.state["_modules"]["x"] = module
    with pytest.raises(ConversionError, match="without end"):
        list(walk(module))


def test_sources_that_are_no_files(tmp_path):
    (tmp_path / "page.pkl").write_text("<!DOCTYPE html><p>sign in")
    for path, reason in [
        (tmp_path, "Is a directory"),
        (tmp_path / "none.pkl", "No such file"),
        (tmp_path / "page.pkl", "web page"),
    ]:
        with pytest.raises(ConversionError, match=reason):
            read_snapshot(path)


def test_trailing_bytes_are_refused(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"G": None}) + b"more")
    with pytest.raises(ConversionError, match="4 bytes follow"):
        read_snapshot(tmp_path / "a.pkl")


def test_rules_take_every_name_exactly_once():
    rules = (Rule(r"a\.(\d+)", r"b/\1"), Rule(r"a\.1", "c"), Rule(r"x|y", "z"))
    assert assign(["a.2"], rules)["a.2"][1] == "b/2"
    with pytest.raises(ConversionError) as caught:
        assign(["a.1", "q", "x", "y"], rules)
    assert len(caught.value.problems) == 3
    assert "matches 2 rules" in str(caught.value) and "matches no rules" in str(caught.value)


def test_dense_after_4x4_keeps_the_function():
    rng = np.random.default_rng(0)
    weight, features = rng.normal(size=(5, 3 * 16)), rng.normal(size=(3, 4, 4))
    ours = features.transpose(1, 2, 0).reshape(-1) @ dense_after_4x4(weight)
    np.testing.assert_allclose(ours, weight @ features.reshape(-1), rtol=1e-12)


def test_tensors_are_not_read_before_they_are_asked_for():
    tensor = rebuild_tensor(storage(np.zeros(4, np.float32)), 0, (4,), (1,), False, {})
    assert isinstance(tensor, Tensor) and isinstance(tensor.storage.data, memoryview)
