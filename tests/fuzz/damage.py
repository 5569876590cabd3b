"""Ways to damage a valid file so that readers get past its first line: each takes bytes and gives others."""

import io
import json
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

Damage = Callable[[bytes, Random], bytes]

LARGEST = 1 << 20  # of a damaged file, bytes; what is longer takes long and finds nothing else
NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    63,
    255,
    256,
    32767,
    65535,
    1 << 24,
    (1 << 31) - 1,
    -(1 << 31),
    1 << 32,
    1 << 62,
    -(1 << 63),
    (1 << 64) - 1,
    10**30,
)
WORDS = (
    "",
    " ",
    "0",
    "x",
    "nan",
    "inf",
    "-1e999",
    "../../etc/passwd",
    "/dev/zero",
    "a\nb",
    "\x1b[2J",
    "\0",
    "\ud800",
    "ä\u202e",
    "9" * 5000,
    "A" * 20_000,
)


def flipped(data: bytes, random: Random) -> bytes:
    """Some other bytes."""
    result = bytearray(data)
    for _ in range(random.randint(1, 4)):
        if result:
            result[random.randrange(len(result))] = random.choice(
                (0, 0xFF, 0x80, 0x7F, random.randrange(256))
            )
    return bytes(result)


def shortened(data: bytes, random: Random) -> bytes:
    """Its end is missing."""
    return data[: random.randrange(len(data) + 1)]


def spliced(data: bytes, random: Random) -> bytes:
    """A part is missing, or there twice, or somewhere else."""
    start, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    end = min(end, start + random.choice((1, 4, 16, 256, LARGEST)))
    place = random.choice((start, random.randrange(len(data) + 1)))
    moved = data[start:end] * random.choice((0, 1, 2, 40))
    return (data[:place] + moved + data[random.choice((place, end)) :])[:LARGEST]


def numbered(data: bytes, random: Random) -> bytes:
    """A number somewhere in it is another one, such as a size in a header."""
    code = random.choice(["<i", ">i", "<I", ">I", "<h", ">h", "<q", "<Q", "<f"])
    size = struct.calcsize(code)
    if len(data) < size:
        return data
    place = random.randrange(min(len(data) - size, random.choice((32, 256, LARGEST))) + 1)
    if code == "<f":
        value: bytes = struct.pack(code, random.choice((0.0, -1.0, 1e30, float("nan"), float("inf"))))
    else:
        value = (random.choice(NUMBERS) & ((1 << 8 * size) - 1)).to_bytes(
            size, "big" if ">" in code else "little"
        )
    return data[:place] + value + data[place + size :]


BYTES: tuple[Damage, ...] = (flipped, shortened, spliced, numbered)


def words(data: bytes, random: Random) -> bytes:
    """A word of a text is another one."""
    found = list(re.finditer(rb"[\w.+-]+", data))
    if not found:
        return random.choice(WORDS).encode("utf-8", "surrogatepass")
    word = random.choice(found)
    value = random.choice((*WORDS, *map(str, NUMBERS))).encode("utf-8", "surrogatepass")
    return data[: word.start()] + value + data[word.end() :]


def lines(data: bytes, random: Random) -> bytes:
    """A line of a text is missing, there twice, or without its end."""
    rows = data.splitlines(keepends=True) or [b"\n"]
    index = random.randrange(len(rows))
    rows[index : index + 1] = random.choice(
        (
            [],
            [rows[index]] * 2,
            [rows[index].rstrip()],
            [rows[index], b"\n"],
            [b'"' + rows[index]],
            [b"\r" + rows[index]],
        )
    )
    return b"".join(rows)


TEXT: tuple[Damage, ...] = (flipped, shortened, spliced, words, lines)


def odd_value(random: Random) -> Any:
    """Something that JSON can hold and nobody expects."""
    deep: Any = random.choice(WORDS)
    for _ in range(random.choice((0, 1, 2, 50))):
        deep = random.choice(([deep], {"format": deep}))
    flat = (None, True, False, 0.5, 1e308, -0.0, [], {}, [[]], [0] * 1000, {"": None})
    return random.choice((random.choice(flat), random.choice(NUMBERS), random.choice(WORDS), deep))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Container and key of everything in a JSON value."""
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]


def json_values(data: bytes, random: Random) -> bytes:
    """A value of a JSON document, also of one in a string of it, is missing, another, or elsewhere."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return flipped(data, random)
    places = _places(value)
    if not places or not random.randrange(50):
        return _odd_document(random)
    container, key = random.choice(places)
    inner = container[key]
    if isinstance(inner, str) and inner[:1] in ("{", "[") and random.randrange(2):
        container[key] = json_values(inner.encode("utf-8", "surrogatepass"), random).decode(
            "utf-8", "replace"
        )
    elif (kind := random.randrange(5)) == 0:
        del container[key]
    elif kind == 1:
        other, place = random.choice(places)
        container[key] = (
            other[place]
            if not isinstance(other.get(place) if isinstance(other, dict) else other, dict | list)
            else 0
        )
    else:
        container[key] = odd_value(random)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _odd_document(random: Random) -> bytes:
    depth = random.choice((100, 5000, 200_000))
    return random.choice(
        (
            b"[" * depth,
            b'{"a":' * depth,
            b"[" * depth + b"]" * depth,
            b"NaN",
            b'{"format": 1e999}',
            b"9" * 5000,
            b"\xff\xfe{}",
            b"\xef\xbb\xbf{}",
            b'"\\ud800"',
            json.dumps(odd_value(random)).encode(),
        )
    )


JSON: tuple[Damage, ...] = (json_values, json_values, json_values, flipped, shortened, spliced)


ZEROS = zlib.compress(bytes(LARGEST))
BOMB = b"x\0" + zlib.compress(bytes(64 * LARGEST))


def png_chunks(data: bytes, random: Random) -> bytes:
    """A chunk of a PNG has other content, with a right checksum, or is missing or there twice."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        length = struct.unpack_from(">I", data, place)[0]
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    if not chunks:
        return flipped(data, random)
    index = random.randrange(len(chunks))
    name, content = chunks[index]
    kind = random.randrange(6)
    if kind == 0:
        chunks[index : index + 1] = random.choice(([], [chunks[index]] * 2))
    elif kind == 1:
        extra = random.choice((b"zTXt", b"iCCP", b"tEXt", b"tRNS", b"PLTE", b"eXIf", b"acTL", b"fdAT"))
        chunks.insert(
            index, (extra, random.choice((BOMB, b"", bytes(300), b"Exif\0\0II*\0\x08\0\0\0\xff\xff")))
        )
    elif kind == 2 and name == b"IDAT":
        chunks[index] = (name, random.choice((ZEROS, zlib.compress(random.choice((b"", bytes(10), data))))))
    else:
        chunks[index] = (name, random.choice(BYTES)(content, random))
    body = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return data[:8] + b"".join(body)


def npy_header(data: bytes, random: Random) -> bytes:
    """The header of an .npy file says something else, in a length that is right."""
    length = struct.unpack_from("<H", data, 8)[0] if len(data) >= 10 else 0
    header = data[10 : 10 + length].decode("latin1")
    match random.randrange(5):
        case 0:
            header = re.sub(r"'descr': [^,]+", f"'descr': {random.choice(DTYPES)}", header)
        case 1:
            shape = tuple(random.choice((*NUMBERS, 2, 2)) for _ in range(random.randrange(5)))
            header = re.sub(r"'shape': \([^)]*\)", f"'shape': {shape}", header)
        case 2:
            header = random.choice(
                ("", "{", "{}", "[" * 5000, "(" * 200 + ")" * 200, "__import__('os')", "9" * 9000)
            )
        case _:
            header = random.choice(TEXT)(header.encode("latin1", "replace"), random).decode("latin1")
    content = header.encode("latin1", "replace")[:60_000]
    return data[:8] + struct.pack("<H", len(content)) + content + data[10 + length :]


DTYPES = (
    "'|O'",
    "'O8'",
    "[('a', '<f4')]",
    "'<f8'",
    "'>f4'",
    "'<c8'",
    "'|S9'",
    "'<U9'",
    "'|V8'",
    "'<M8[s]'",
    "'?'",
    "'<f2'",
    "'|i1'",
    "'|V2000000000'",
    "('<f4', (1000000, 1000000))",
    "[('x', 'O')]",
    "1",
)


def zip_members(data: bytes, random: Random) -> bytes:
    """A member of a zip archive has other content or another name, or all are compressed."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except Exception:
        return flipped(data, random)
    pickles = [index for index, (name, _) in enumerate(members) if name.endswith(".pkl")]
    index = random.choice(pickles) if pickles and random.randrange(3) else random.randrange(len(members))
    name, content = members[index]
    match random.randrange(8):
        case 0:
            members[index : index + 1] = random.choice(
                ([], [members[index]] * 2, [("../../" + name, content)])
            )
        case 1:
            members[index] = (name, bytes(random.choice((0, 1, LARGEST, 8 * LARGEST))))
        case 2:
            members.append(
                (random.choice(("constants.pkl", "archive/constants.pkl", "archive/data/9")), content)
            )
        case _:
            change = pickle_opcodes if name.endswith(".pkl") else flipped
            members[index] = (name, change(content, random))
    packed = random.choice((zipfile.ZIP_STORED,) * 4 + (zipfile.ZIP_DEFLATED,))
    result = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(result, "w", packed) as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, packed)
    return result.getvalue()


def pickle_opcodes(data: bytes, random: Random) -> bytes:
    """An operation of a pickle is another one, is missing, or is there twice; or it builds something else."""
    try:
        places = [place for _, _, place in pickletools.genops(data)]
    except Exception:
        return flipped(data, random)
    at = random.randrange(len(places))
    start, end = places[at], places[at + 1] if at + 1 < len(places) else len(data)
    match random.randrange(5):
        case 0:
            return data[:start] + random.choice(PICKLED) + data[end:]
        case 1:
            return data[:start] + data[end:]
        case 2:
            return data[:end] + data[start:end] * random.choice((1, 2, 1000)) + data[end:]
        case 3:
            return data[:start] + random.choice(PICKLED) + data[start:]
        case _:
            return random.choice((flipped, numbered))(data, random)


def _pickled_number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little")


PICKLED = (
    b"N",
    b"}",
    b"]",
    b")",
    b"\x88",
    b"K\x00",
    _pickled_number(0x7FFFFFFF),
    b"X\x01\0\0\0a",
    b"(",
    b"0",
    b"R",
    b"b",
    b"t",
    b"s",
    b"a",
    b"e",
    b"u",
    b"Q",
    b"h\x00",
    b"\x85" * 3,
    b"\x85" * 200_000,
    b"]q\x00h\x00a",
    b"}(K\x01" + b"\x85" * 200_000 + b"K\x01u",
    b"cbuiltins\nbytearray\n" + _pickled_number(0x70000000) + b"\x85R",
    b"cos\nsystem\nX\x02\0\0\0ls\x85R",
    b"ctorch\nTensor\n" + _pickled_number(0x7000) * 3 + b"\x87R",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"cnumpy\ndtype\nX\x0b\0\0\0V2000000000\x85R",
    b"cnumpy._core.multiarray\nscalar\n",
    b"ctorch\nLongStorage\n",
    b"ccollections\nOrderedDict\n",
    b"c_codecs\nencode\n",
    b"cbuiltins\ngetattr\n",
    b"ctorch._tensor\n_rebuild_from_type_v2\n",
    b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n",
    b"ctorch\nSize\n",
    b"ctorch\ndevice\nX\x06\0\0\0cuda:0\x85R",
    b"G\x7f\xf0\0\0\0\0\0\0",
    b"\x8a\xff" + b"\xff" * 255,
    b"V" + b"9" * 5000 + b"\n",
    b"}K\x01" + b"q\x00h\x00\x86" * 60 + b"K\x01s",
    b"c_codecs\nencode\nU\x01aX\x03\0\0\0hex\x86R",
    b"ctorch.storage\nUntypedStorage\n" + _pickled_number(0x7FFFFFFF) + b"\x85R",
)


def safetensors_header(data: bytes, random: Random) -> bytes:
    """The JSON of a .safetensors file says something else, in a length that is right or nearly so."""
    if len(data) < 8:
        return flipped(data, random)
    length = struct.unpack_from("<Q", data)[0]
    header = random.choice((json_values, json_values, words))(data[8 : 8 + length], random)
    if random.randrange(2):
        name = random.choice(
            ("F32", "F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "C64", "F4")
        ).encode()
        header = re.sub(rb'"F32"', b'"' + name + b'"', header, count=random.choice((0, 1)))
    said = random.choice((len(header), len(header), len(header), random.choice(NUMBERS) & 0xFFFFFFFFFFFFFFFF))
    return struct.pack("<Q", said) + header + data[8 + length :]


def onnx_fields(data: bytes, random: Random) -> bytes:
    """A field of an ONNX model, at any depth, has another value; or a property of ours has."""
    import onnx

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception:
        return flipped(data, random)
    if model.metadata_props and random.randrange(3) == 0:
        entry = random.choice(model.metadata_props)
        value: Any = entry.value  # bytes, where it is no UTF-8
        changed = json_values(value if isinstance(value, bytes) else value.encode("utf-8"), random)
        entry.value = random.choice((changed.decode("utf-8", "ignore"), str(random.choice(NUMBERS)), ""))
    else:
        for _ in range(random.randint(1, 2)):
            _change_message(model, random)
    return model.SerializeToString()[:LARGEST]


def _change_message(message: Any, random: Random) -> None:
    for _ in range(random.choice((1, 2, 3, 5, 8, 13))):  # steps down
        inner = [(field, value) for field, value in message.ListFields() if field.type == field.TYPE_MESSAGE]
        if not inner:
            break
        field, value = random.choice(inner)
        message = random.choice(value) if _repeated(field) else value
    fields = list(message.DESCRIPTOR.fields)
    set_ones = [field for field, _ in message.ListFields()]
    field = random.choice(set_ones if set_ones and random.randrange(4) else fields)
    try:
        _change_field(message, field, random)
    except (ValueError, TypeError, IndexError):  # what this field cannot hold
        message.ClearField(field.name)


def _repeated(field: Any) -> bool:
    new = getattr(field, "is_repeated", None)  # protobuf 6.31; `label` went with 7
    return bool(field.label == field.LABEL_REPEATED) if new is None else bool(new)


def _change_field(message: Any, field: Any, random: Random) -> None:
    repeated, name = _repeated(field), field.name
    if not random.randrange(5):
        message.ClearField(name)
        return
    if field.type == field.TYPE_MESSAGE:
        values = getattr(message, name)
        if repeated:
            values.add().CopyFrom(random.choice(values)) if values and random.randrange(2) else values.add()
            if len(values) > 1 and random.randrange(2):
                del values[random.randrange(len(values))]
        else:
            values.SetInParent()
        return
    value = _scalar(field, random)
    if repeated:
        values = getattr(message, name)
        if values and random.randrange(3):
            values[random.randrange(len(values))] = value
        else:
            values.extend([value] * random.choice((1, 8)))
    else:
        setattr(message, name, value)


def _scalar(field: Any, random: Random) -> Any:
    if field.type == field.TYPE_STRING:
        names = (
            "Constant",
            "Loop",
            "If",
            "Expand",
            "ConstantOfShape",
            "EPContext",
            "reference",
            "flow",
            "axes",
        )
        return random.choice(names + WORDS).encode("utf-8", "ignore").decode()
    if field.type == field.TYPE_BYTES:
        return random.choice((b"", b"\0" * 8, b"\xff" * 16, bytes(4096)))
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return random.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    return random.choice((*NUMBERS, 1, 2, 3, 4, 5, 10, 13, 16, 19, 21, 1000))


ONNX: tuple[Damage, ...] = (onnx_fields, onnx_fields, onnx_fields, flipped, shortened, spliced)
