"""A map is read as numpy would read it; whatever else a pickle may ask for is refused, and nothing of it is run."""

import io
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published import a_map, npy

from mimic_wds.importing.npy import MAX_BYTES, DictReader, RefusedPickle, read_dict

maps = st.dictionaries(st.integers(0, 195), st.integers(0, 195), max_size=150)

#: The head of an array of one object, as numpy writes it.
HEAD = npy({})[: npy({}).index(b"\x80")]


def with_protocol(content, protocol):
    return HEAD + pickle.dumps(np.array(content, dtype=object), protocol=protocol)


@settings(max_examples=100, deadline=None)
@given(maps, st.sampled_from([2, 3, 4, 5]))
def test_a_map_is_read_as_numpy_reads_it(content, protocol):
    data = with_protocol(content, protocol)
    assert list(read_dict(data).items()) == list(np.load(io.BytesIO(data), allow_pickle=True).item().items())


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, np.int16, np.uint64])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_numpy_numbers_are_read(kind, protocol):
    content = {kind(k): kind(v) for k, v in a_map().items()}
    read = read_dict(with_protocol(content, protocol))
    assert read == a_map()
    assert {type(v) for v in read.values()} == {int}


def test_big_endian_numbers_are_read():
    scalar = np.array([5, 300], ">i4")
    assert read_dict(npy({scalar[0]: scalar[1]})) == {5: 300}


@pytest.mark.parametrize("core", ["core", "_core"])
def test_the_published_files_of_numpy_1_are_read(core):
    # As numpy 1.20 wrote them: protocol 3, numpy.core, a type written as 'O8'.
    items = b"".join(b"K%cK%c" % pair for pair in a_map().items())
    body = (
        b"\x80\x03cnumpy.%b.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02C\x01bq\x03\x87q\x04Rq\x05"
        b"(K\x01)cnumpy\ndtype\nq\x06X\x02\x00\x00\x00O8q\x07K\x00K\x01\x87q\x08Rq\t(K\x03X\x01\x00\x00\x00|q\nNNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK?tq\x0bb\x89]q\x0c}q\r(%bu" % (core.encode(), items) + b"atq\x0eb."
    )
    assert len(HEAD) == 128
    assert read_dict(HEAD + body) == a_map() == np.load(io.BytesIO(HEAD + body), allow_pickle=True).item()


@settings(max_examples=100, deadline=None)
@given(st.lists(maps, max_size=8), st.data())
def test_the_fast_reader_gives_the_same(contents, data):
    reader = DictReader()
    for content in [a_map(1), a_map(2), *contents, a_map(3)]:
        whole = npy(content)
        assert list(reader.read(whole).items()) == list(content.items())
        at = data.draw(st.integers(0, len(whole) - 1))
        changed = whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :]
        assert outcome(reader.read, changed) == outcome(read_dict, changed)


def outcome(function, data):
    try:
        return list(function(data).items())
    except ValueError as error:
        return type(error)


class Attack:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(marker):
    """Name -> the bytes of a file that would leave the file `marker` behind, or take all memory, if it were loaded."""
    command, code = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    system = pickle.dumps(Attack(os.system, command))
    argument = b"\x8c%c%b" % (len(command), command.encode())
    return {
        "os.system as the whole": HEAD + system,
        "os.system in the dictionary": npy({0: Attack(os.system, command)}),
        "os.system as a key": npy({Attack(os.system, command): 1}),
        "builtins.eval": npy({0: Attack(eval, code)}),
        "builtins.exec in a list in a tuple": npy({0: ([Attack(exec, code)],)}),
        "getattr": npy({0: Attack(getattr, dict, "fromkeys")}),
        "protocol 0": HEAD + f"cos\nsystem\n(S'{command}'\ntR.".encode(),
        "INST": HEAD + f"(S'{command}'\nios\nsystem\n.".encode(),
        "OBJ": HEAD + f"(cos\nsystem\nS'{command}'\no.".encode(),
        "a name from the stack": HEAD + b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + argument + b"\x85R.",
        "a dotted name": HEAD + b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93\x85R.",
        "numpy's own loader": HEAD + b"\x80\x03cnumpy\nload\n(X\x01\x00\x00\x00xtR.",
        "NEWOBJ": HEAD + b"\x80\x02cnumpy\nndarray\n)\x81.",
        "a persistent id": HEAD + b"\x80\x02K\x01Q.",
        "an extension": HEAD + b"\x80\x02\x82\x01.",
        "ndarray called": HEAD + b"\x80\x03cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",
        "an array of its own size": HEAD
        + b"\x80\x03cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\xff\xff\xff\x7ftC\x01btR.",
        "a type of its own size": HEAD + b"\x80\x03cnumpy\ndtype\n(X\x09\x00\x00\x00V99999999tR.",
        "a subclass of an array": HEAD
        + b"\x80\x03cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(K\x00tC\x01btR.",
        "too large a file": HEAD + b"]" * MAX_BYTES,
    }


@pytest.mark.parametrize("name", attacks("x"))
def test_an_attack_is_refused_and_nothing_of_it_is_run(name, tmp_path):
    marker = tmp_path / "marker"
    with pytest.raises(RefusedPickle):
        read_dict(attacks(marker)[name])
    assert not marker.exists()


def test_the_attacks_are_real(tmp_path):
    """Loaded by numpy, the payloads do what they say: so the test above shows something."""
    marker = tmp_path / "marker"
    for name in ("os.system in the dictionary", "builtins.eval", "builtins.exec in a list in a tuple", "protocol 0"):
        np.load(io.BytesIO(attacks(marker)[name]), allow_pickle=True)
        assert marker.exists(), name
        marker.unlink()


def bombs():
    """Name -> a file that is small and would be large, deep or endless."""
    doubled = b"]q\x00" + b"".join(b"(h%ch%ceq%c" % (0, 0, 0) for _ in range(1000))
    nested = b"\x80\x02K\x01" + b"\x85" * 60_000 + b"."
    return {
        "a list that doubles": HEAD + b"\x80\x02" + doubled + b".",
        "a tuple 60,000 deep": HEAD + nested,
        "a deep tuple as a key": HEAD + b"\x80\x02}K\x01" + b"\x85" * 60_000 + b"K\x01s.",
        "a list of itself": HEAD + b"\x80\x02]q\x00h\x00a.",
        "a dictionary of itself": HEAD + b"\x80\x02}q\x00K\x01h\x00s.",
        "a text of 4 GB": HEAD + b"\x80\x03X\xff\xff\xff\xffabc",
        "bytes of 4 GB": HEAD + b"\x80\x03B\xff\xff\xff\xffabc",
        "a frame of 2**63": HEAD + b"\x80\x04\x95" + b"\xff" * 8 + b"}.",
        "a memo of 2**31 places": HEAD + b"\x80\x02}r\xff\xff\xff\x7f.",
        "a number of 255 bytes": HEAD + b"\x80\x02}K\x01\x8a\xff" + b"\x7f" * 255 + b"s.",
        "a header of 4 GB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr': '|O'",
        "marks without end": HEAD + b"(" * 60_000,
        "a header of blanks": b"\x93NUMPY\x01\x00\xff\xff" + b" " * 65535,
    }


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_does_not_go_off(name):
    data = bombs()[name]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"."):
            read_dict(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 128 * MAX_BYTES


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 255), st.integers(0, 10**6))
def test_any_damage_is_a_value_error_or_whole_numbers(place, byte, length):
    whole = npy({**a_map(), 3: np.int64(7)})
    changed = bytearray(whole)
    changed[place % len(whole)] = byte
    for data in (bytes(changed), whole[: length % len(whole)]):
        found = outcome(read_dict, data)
        assert found in (ValueError, RefusedPickle) or all(type(n) is int for pair in found for n in pair)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_any_pickle_is_a_value_error_or_whole_numbers(pickled):
    assert outcome(read_dict, HEAD + b"\x80\x03" + pickled) in (ValueError, RefusedPickle)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\3\4",
        npy({"a": 1}),
        npy({1: 2.0}),
        npy({True: 1}),
        npy([1, 2]),
        npy(None),
        npy({1: [2]}),
        np.lib.format.magic(1, 0) + struct.pack("<H", 10) + b"{'descr': ",
    ],
)
def test_something_else_is_a_value_error(data):
    with pytest.raises(ValueError, match=r"."):
        read_dict(data)


def test_an_array_of_numbers_is_no_map():
    file = io.BytesIO()
    np.save(file, np.arange(4))
    with pytest.raises(ValueError, match="is no array of one object"):
        read_dict(file.getvalue())
