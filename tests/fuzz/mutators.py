"""What is done to files: bits, lengths and whole values that nobody meant."""

from __future__ import annotations

import json
import struct
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

#: Numbers at which something ends, or that ask for more than there is.
NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 7, 127, 255, 256, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32, 2**53, 2**62,
    2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**18, 10**30, -(2**31), -(2**63), 0.5, -0.0, 1e-300,
    1e300, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip

#: Texts that mean another place, another thing, or nothing.
TEXTS = (
    "", " ", ".", "..", "../../outside/secret.zarr/0", "../outside", "/etc/passwd", "/", "0/../0",
    "..\\outside", "file:///etc/passwd", "c", "zyx", "uint8", "float64", "<f8", ">u2", "|V5", "|O",
    "zstd", "blosc", "none", "NaN", "-Infinity", "true", "\x00", "\u202e\ud7ff", "x" * 5000,
    "%s%n", "${HOME}", "1e999", "9" * 5000,
)  # fmt: skip

#: Values of every kind, for a place where another is expected.
ODD: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], [0], [1, 1, 1], [-1] * 3, [10**18] * 3, [0] * 40, {"a": {}},
    {"name": "bytes"}, {"id": "zlib"}, [{"path": "0"}], *NUMBERS, *TEXTS,
)  # fmt: skip


def flip(data: bytes, rng: Random) -> bytes:
    """Flip one to eight bits."""
    raw = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(raw)


def cut(data: bytes, rng: Random) -> bytes:
    """Keep the beginning only, or the end."""
    at = rng.choice((0, 1, len(data) - 1, rng.randrange(len(data))))
    return data[at:] if rng.random() < 0.2 else data[:at]


def overwrite(data: bytes, rng: Random) -> bytes:
    """Write a whole number of some width over what is there."""
    code = rng.choice(("<I", ">I", "<Q", ">Q", "<H", ">H", "B"))
    width = struct.calcsize(code)
    value = rng.choice((0, 1, 2**31, 2**40, 10**18, 2**64 - 1, 2**32 - 1, 255, 65535)) % 2 ** (
        8 * width
    )
    at = rng.randrange(max(1, len(data) - width))
    return data[:at] + struct.pack(code, value) + data[at + width :]


def splice(data: bytes, rng: Random) -> bytes:
    """Remove a piece, double it, or put bytes of chance into it."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    b = min(b, a + 64)
    piece = rng.choice((b"", data[a:b] * 2, rng.randbytes(b - a + 1), b"[" * 100_000))
    return data[:a] + piece + data[b:]


Mutator = Callable[[bytes, Random], bytes]

BYTES: Sequence[Mutator] = (flip, flip, cut, overwrite, overwrite, splice)


def damage(data: bytes, rng: Random) -> bytes:
    """Damage bytes in one way."""
    return rng.choice(BYTES)(data, rng) if data else rng.randbytes(20)


def deep(rng: Random) -> Any:
    """A value in a value in a value."""
    value: Any = 0
    for _ in range(rng.choice((5, 100, 400))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where there are values in a value."""
    found = [path] if path else []
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def change(value: Any, rng: Random) -> Any:
    """Change one value inside a value of JSON."""
    found = places(value)
    if not found or rng.random() < 0.03:
        return rng.choice((deep(rng), rng.choice(ODD)))
    *way, last = rng.choice(found)
    parent = value
    for key in way:
        parent = parent[key]
    how = rng.random()
    if how < 0.15:
        del parent[last]
    elif how < 0.25 and isinstance(parent, dict):
        parent[rng.choice((f"{last}x", "", rng.choice(TEXTS)))] = parent.pop(last)
    elif how < 0.3 and isinstance(parent, list):
        parent.insert(last, parent[last])
    elif how < 0.35:
        parent[last] = deep(rng)
    elif how < 0.5 and isinstance(parent[last], int | float):
        parent[last] = rng.choice(NUMBERS)
    elif how < 0.6 and isinstance(parent[last], str):
        parent[last] = rng.choice(TEXTS)
    else:
        parent[last] = rng.choice(ODD)
    return value


def _change_json(data: bytes, rng: Random) -> bytes:
    """Change values of a JSON file, or, now and then, its bytes."""
    if rng.random() < 0.15:
        return damage(data, rng)
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = change(value, rng)
    return json.dumps(value).encode()


def toml(value: Any) -> str:
    """Write a value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return str(value)  # inf and nan are TOML
    return '"nothing"' if value is None else json.dumps(value)


def _change_toml(data: bytes, rng: Random) -> bytes:
    """Change values of a TOML file, or, now and then, its bytes."""
    if rng.random() < 0.3:
        return damage(data, rng)
    value: Any = tomllib.loads(data.decode())
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = change(value, rng)
    if not isinstance(value, dict):
        return toml(value).encode()
    return "\n".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()).encode()


def _change_model(data: bytes, rng: Random) -> bytes:
    """Change the header of a safetensors file, what it says of the model, or its bytes."""
    if rng.random() < 0.3:
        return damage(data, rng)
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    if rng.random() < 0.7:
        ours = json.loads(header["__metadata__"]["tilenet"])
        header["__metadata__"]["tilenet"] = json.dumps(change(ours, rng))
        if rng.random() < 0.05:
            header["__metadata__"]["tilenet"] = "[" * 100_000
    else:
        header = change(header, rng)
    text = json.dumps(header).encode()
    size = rng.choice((len(text),) * 20 + (0, 2**40, 2**63))
    return size.to_bytes(8, "little") + text + body


def _or_damage(change: Mutator) -> Mutator:
    # What was damaged before may have no values any more.
    def mutate(data: bytes, rng: Random) -> bytes:
        try:
            return change(data, rng)
        except (ValueError, LookupError, TypeError, RecursionError, AttributeError):
            return damage(data, rng)

    return mutate


change_json = _or_damage(_change_json)
change_toml = _or_damage(_change_toml)
change_model = _or_damage(_change_model)


def relink(path: Path, rng: Random, outside: Path) -> None:
    """Put a symbolic link in the place of a file."""
    target = rng.choice((outside / "notes.txt", outside, Path("nowhere"), Path(path.name)))
    path.unlink()
    path.symlink_to(target)
