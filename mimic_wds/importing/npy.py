"""Reading a dictionary of patch numbers from a pickled .npy file without ever running a pickle.

MIMIC's `corresponding.npy` is `numpy.save` of a Python dict: a 0-d array of objects, that is, an .npy header and a
pickle (arXiv 2306.15128, the released data). A pickle is a program for a small stack machine, and loading one may call
anything. Here the few instructions that such a dict needs are interpreted: names stay names, nothing is imported,
called or allocated by the file's word, and every other instruction or name is refused. Work and memory are linear in
the size of the file, which is bounded.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

#: A larger file is no map of patches: an entry takes 4 bytes, of numpy scalars some 80; there are a few hundred.
MAX_BYTES = 1 << 16

_HEADER = re.compile(
    rb"\s{0,99}\{ ?'descr': ?'\|O[48]?', ?'fortran_order': ?(?:False|True), ?'shape': ?\(\),? ?\}\s{0,4096}"
)
_HEADER_LENGTHS = {(1, 0): 2, (2, 0): 4, (3, 0): 4}  # version -> bytes of the length that follows it

#: The only names that may occur, under every module that numpy has used for them.
_NAMES = {
    **{(f"numpy.{core}.multiarray", name): name for core in ("core", "_core") for name in ("_reconstruct", "scalar")},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",  # bytes in protocols 0 to 2
}

#: dtype of a numpy scalar -> (bytes, signed).
_INTEGERS = {f"{kind}{size}": (size, kind == "i") for kind in "iu" for size in (1, 2, 4, 8)}

#: Longer files are not remembered by a `DictReader`: 196 entries take some 1060 bytes.
_LEARNT_BYTES = 2048

#: A shorter run may be something else: the arguments of a type, say.
_LONG_RUN = 64

#: A run of one-byte numbers: what most of the file is.
_ONE_BYTE_NUMBERS = re.compile(rb"(?:K.)+", re.DOTALL)


class RefusedPickle(ValueError):
    """The file asks for something that a dictionary of numbers has no need of."""


@dataclass(eq=False, slots=True)
class _Name:
    """A name that the pickle mentions; what it stands for is never looked up."""

    name: str


@dataclass(eq=False, slots=True)
class _Dtype:
    """A numpy type: its code, and whether its numbers are big-endian."""

    code: str
    is_big: bool = False


@dataclass(eq=False, slots=True)
class _Array:
    """The array that the file holds; `content` once it is filled."""

    content: list[object] = field(default_factory=list)


def read_dict(data: bytes) -> dict[int, int]:
    """The dictionary of whole numbers in the bytes of an .npy file, in the file's order.

    Raises RefusedPickle when the pickle in it asks for more than that, ValueError when it is damaged or something else.
    """
    if len(data) > MAX_BYTES:
        raise RefusedPickle(f"has {len(data)} bytes, a map of patches at most {MAX_BYTES}")
    array = _Machine(data, _pickle_start(data)).run()
    if not isinstance(array, _Array) or len(array.content) != 1 or not isinstance(array.content[0], dict):
        raise ValueError("is no array of one dictionary")
    numbers: dict[int, int] = array.content[0]
    if not {*map(type, numbers), *map(type, numbers.values())} <= {int}:
        raise ValueError("its dictionary holds something else than whole numbers")
    return numbers


class DictReader:
    """`read_dict` for many files of one writer, several times as fast.

    Files of one length differ in their run of one-byte numbers alone. Once one was interpreted and gave just the
    numbers of its run, another one that is the same byte for byte around the run gives those of its own.
    """

    def __init__(self) -> None:
        self._around: dict[int, tuple[bytes, bytes]] = {}  #: length of a file -> its bytes before and after the run

    def read(self, data: bytes) -> dict[int, int]:
        """As `read_dict`."""
        before, after = self._around.get(len(data), (b"", b""))
        if before and data.startswith(before) and data.endswith(after):
            run = data[len(before) : len(data) - len(after)]
            numbers = _pairs(run)
            if _ONE_BYTE_NUMBERS.fullmatch(run) and 4 * len(numbers) == len(run):
                return numbers
        numbers = read_dict(data)
        if len(data) <= _LEARNT_BYTES:
            self._learn(data, numbers)
        return numbers

    def _learn(self, data: bytes, numbers: dict[int, int]) -> None:
        """Remember what is around the numbers, if all of them are in the file's one long run."""
        run = max(_ONE_BYTE_NUMBERS.findall(data), key=len, default=b"")
        is_long = len(run) >= _LONG_RUN and data.count(run) == 1
        if is_long and 2 * len(run[1::2]) == len(run) and [*_pairs(run).items()] == [*numbers.items()]:
            before, _, after = data.partition(run)
            self._around[len(data)] = before, after


def _pairs(run: bytes) -> dict[int, int]:
    """The dictionary of a run of one-byte numbers: K, key, K, value and so on."""
    return dict(zip(run[1::4], run[3::4], strict=False))


def _pickle_start(data: bytes) -> int:
    """Where the pickle starts: after the header of a 0-d array of objects."""
    width = _HEADER_LENGTHS.get((data[6], data[7]) if len(data) > 12 else (0, 0))
    if not data.startswith(b"\x93NUMPY") or width is None:
        raise ValueError("is no .npy file")
    end = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    if end > len(data) or not _HEADER.fullmatch(data[8 + width : end]):
        raise ValueError("is no array of one object")
    return end


class _Machine:
    """The stack machine: `run` gives the pickle's one value, made of plain values and of the symbols above."""

    def __init__(self, data: bytes, position: int):
        self.data = data
        self.position = position
        self.stack: list[object] = []
        self.marks: list[int] = []  #: sizes of the stack where groups of values start
        self.memo: dict[int, object] = {}

    def run(self) -> object:
        """Interpret up to STOP. Raises RefusedPickle or ValueError."""
        try:
            while True:
                code = self.data[self.position]
                self.position += 1
                if code == _STOP:
                    break
                operation = _OPERATIONS.get(code)
                if operation is None:
                    raise RefusedPickle(f"uses the pickle instruction {bytes([code])!r}")
                operation(self)
            (value,) = self.stack
        except (IndexError, UnicodeDecodeError):
            raise ValueError("its pickle is damaged") from None
        except (TypeError, KeyError) as error:  # an unhashable key, say; a memo that was not set
            raise ValueError(f"its pickle is damaged: {error}") from None
        return value

    def take(self, length: int) -> bytes:
        """The next `length` bytes of the pickle."""
        taken = self.data[self.position : self.position + length]
        if len(taken) != length:
            raise ValueError("its pickle is cut short")
        self.position += length
        return taken

    def number(self, length: int, signed: bool = False) -> int:
        """The next `length` bytes as a little-endian number."""
        return int.from_bytes(self.take(length), "little", signed=signed)

    def line(self) -> str:
        """Text up to the next line break."""
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise ValueError("its pickle is cut short")
        return self.take(end + 1 - self.position)[:-1].decode("ascii")

    def pop(self) -> object:
        """The top of the stack."""
        return self.stack.pop()

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop_group(self) -> list[object]:
        """Everything above the last mark, without the mark."""
        start = self.marks.pop()
        group = self.stack[start:]
        del self.stack[start:]
        return group


def _one_byte_numbers(m: _Machine) -> None:
    run = _ONE_BYTE_NUMBERS.match(m.data, m.position - 1)
    if run is None:
        raise ValueError("its pickle is cut short")
    m.stack.extend(run[0][1::2])
    m.position = run.end()


def _name(m: _Machine, module: str, name: str) -> None:
    known = _NAMES.get((module, name))
    if known is None:
        raise RefusedPickle(f"names {module[:60]}.{name[:60]}")
    m.push(_Name(known))


def _name_from_stack(m: _Machine) -> None:
    name, module = m.pop(), m.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise RefusedPickle("uses a name that is no text")
    _name(m, module, name)


def _remember(m: _Machine, slot: int) -> None:
    m.memo[slot] = m.stack[-1]


def _tuple(m: _Machine, length: int) -> None:
    if len(m.stack) < length:
        raise IndexError
    items = tuple(m.stack[len(m.stack) - length :])
    del m.stack[len(m.stack) - length :]
    m.push(items)


def _append(m: _Machine, items: list[object]) -> None:
    target = m.stack[-1]
    if not isinstance(target, list):
        raise RefusedPickle("appends to something that is no list")
    target.extend(items)


def _set(m: _Machine, items: list[object]) -> None:
    target = m.stack[-1]
    if not isinstance(target, dict) or len(items) % 2:
        raise RefusedPickle("sets items of something that is no dictionary")
    keys = items[::2]
    if not set(map(type, keys)) <= {int}:  # hashing a deep tuple would recurse as deep
        raise ValueError("its dictionary holds something else than whole numbers")
    expected = len(target) + len(keys)
    target.update(zip(keys, items[1::2], strict=True))
    if len(target) != expected:
        raise ValueError("its dictionary has a key twice")


def _set_one(m: _Machine) -> None:
    value, key = m.pop(), m.pop()
    _set(m, [key, value])


def _append_one(m: _Machine) -> None:
    value = m.pop()
    _append(m, [value])


def _reduce(m: _Machine) -> None:
    """What would be a call: only these three, on arguments of these shapes, and none of them is made."""
    arguments, function = m.pop(), m.pop()
    if not isinstance(function, _Name) or not isinstance(arguments, tuple):
        raise RefusedPickle("calls something that is no name")
    m.push(_CALLS.get(function.name, _no_call)(arguments))


def _no_call(_: tuple[object, ...]) -> object:
    raise RefusedPickle("calls something that it should only name")


def _new_array(arguments: tuple[object, ...]) -> object:
    if len(arguments) != 3 or not isinstance(arguments[0], _Name) or arguments[0].name != "ndarray":
        raise RefusedPickle("makes something else than an array")
    if arguments[1] != (0,):
        raise RefusedPickle("makes an array of its own size")
    return _Array()


def _new_dtype(arguments: tuple[object, ...]) -> object:
    code = arguments[0] if arguments else None
    if not isinstance(code, str) or code not in {*_INTEGERS, "O8", "O4", "O"}:
        raise RefusedPickle(f"uses an array type of its own: {str(code)[:40]!r}")
    return _Dtype(code)


def _new_scalar(arguments: tuple[object, ...]) -> object:
    dtype, data = arguments if len(arguments) == 2 else (None, None)
    if not isinstance(dtype, _Dtype) or dtype.code not in _INTEGERS or not isinstance(data, bytes):
        raise RefusedPickle("makes a number of another kind than a whole one")
    length, signed = _INTEGERS[dtype.code]
    if len(data) != length:
        raise ValueError(f"a number of {length} bytes has {len(data)}")
    return int.from_bytes(data, "big" if dtype.is_big else "little", signed=signed)


def _encode(arguments: tuple[object, ...]) -> object:
    """Bytes as protocols 0 to 2 write them: text whose characters are the bytes."""
    if len(arguments) != 2 or arguments[1] != "latin1" or not isinstance(arguments[0], str):
        raise RefusedPickle("encodes a text in its own way")
    try:
        return arguments[0].encode("latin1")
    except UnicodeEncodeError:
        raise ValueError("its pickle is damaged: bytes above 255") from None


_CALLS: dict[str, Callable[[tuple[object, ...]], object]] = {
    "_reconstruct": _new_array,
    "dtype": _new_dtype,
    "scalar": _new_scalar,
    "encode": _encode,
}


def _build(m: _Machine) -> None:
    """The state of an array or of a type."""
    state = m.pop()
    target = m.stack[-1]
    if isinstance(target, _Dtype) and isinstance(state, tuple) and len(state) >= 2:
        target.is_big = state[1] == ">"
    elif isinstance(target, _Array) and isinstance(state, tuple) and len(state) == 5:
        shape, content = state[1], state[4]
        if shape != () or not isinstance(content, list):
            raise RefusedPickle("fills an array of its own size")
        target.content = content
    else:
        raise RefusedPickle("gives a state to something that is neither array nor type")


_Operation: TypeAlias = Callable[[_Machine], None]
_STOP = ord(".")

_OPERATIONS: dict[int, _Operation] = {
    0x80: lambda m: _ignore(m.number(1)),  # PROTO
    0x95: lambda m: _ignore(m.number(8)),  # FRAME: its length is of no interest, the whole pickle is here
    ord("K"): _one_byte_numbers,  # BININT1
    ord("M"): lambda m: m.push(m.number(2)),  # BININT2
    ord("J"): lambda m: m.push(m.number(4, signed=True)),  # BININT
    0x8A: lambda m: m.push(m.number(m.number(1), signed=True)),  # LONG1
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    0x8C: lambda m: m.push(m.take(m.number(1)).decode()),  # SHORT_BINUNICODE
    ord("X"): lambda m: m.push(m.take(m.number(4)).decode()),  # BINUNICODE
    ord("C"): lambda m: m.push(m.take(m.number(1))),  # SHORT_BINBYTES
    ord("B"): lambda m: m.push(m.take(m.number(4))),  # BINBYTES
    ord("c"): lambda m: _name(m, m.line(), m.line()),  # GLOBAL
    0x93: _name_from_stack,  # STACK_GLOBAL
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord(")"): lambda m: m.push(()),
    0x85: lambda m: _tuple(m, 1),
    0x86: lambda m: _tuple(m, 2),
    0x87: lambda m: _tuple(m, 3),
    ord("t"): lambda m: m.push(tuple(m.pop_group())),
    ord("]"): lambda m: m.push([]),
    ord("a"): _append_one,
    ord("e"): lambda m: _append(m, m.pop_group()),
    ord("}"): lambda m: m.push({}),
    ord("s"): _set_one,
    ord("u"): lambda m: _set(m, m.pop_group()),
    0x94: lambda m: _remember(m, len(m.memo)),  # MEMOIZE
    ord("q"): lambda m: _remember(m, m.number(1)),  # BINPUT
    ord("r"): lambda m: _remember(m, m.number(4)),  # LONG_BINPUT
    ord("h"): lambda m: m.push(m.memo[m.number(1)]),  # BINGET
    ord("j"): lambda m: m.push(m.memo[m.number(4)]),  # LONG_BINGET
    ord("R"): _reduce,
    ord("b"): _build,
}


def _ignore(_: int) -> None:
    pass
