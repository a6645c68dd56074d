"""MegaDepth-1500 as LoFTR publishes it, converted once to a text list.

LoFTR's scene files (Sun et al., CVPR 2021, ``megadepth_test_1500_scene_info/*.npz``) hold numpy object arrays, that is
pickles, which run code of their author's choosing when loaded the usual way. They are read here by an unpickler that
knows arrays, numbers, strings and containers and nothing else, and only for the conversion.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.readers.folder import natural_key
from semkey.errors import DatasetError
from semkey.files import atomic_write_text
from semkey.untrusted import MEGABYTE, one_line

_NEEDED = ("image_paths", "intrinsics", "poses", "pair_infos")
# What zipfile, numpy and pickle raise on bytes that are not what they should be.
_DAMAGE = (
    OSError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    TypeError,
    LookupError,
    AttributeError,
    MemoryError,
    RecursionError,
    NotImplementedError,
    OverflowError,
    SyntaxError,
    tokenize.TokenError,
    RuntimeError,  # an encrypted archive
)
# LoFTR's scene files have a dozen arrays, a few megabytes of objects and a table of overlaps of at most 200 MB.
_MOST_MEMBERS, _MOST_BYTES, _MOST_PICKLED, _MOST_VALUES = 100, 1024 * MEGABYTE, 32 * MEGABYTE, 20_000_000


def convert_megadepth(npz_folder: str | Path, out: str | Path) -> int:
    """Write the pairs of LoFTR's scene files as a list for :func:`semkey.evaluation.data.pair_lists.pair_list_sets`.

    Args:
        npz_folder: folder of ``*.npz`` scene files with ``image_paths``, ``intrinsics`` (3x3), ``poses`` (4x4, world to
            camera) and ``pair_infos`` ((index0, index1), overlap, ...); read in natural order of their names.
        out: text file to write, atomically; one comment per scene file, then a line per pair. Image names stay as in
            the files (``Undistorted_SfM/0015/images/...``).

    Returns:
        How many pairs were written.

    Raises:
        DatasetError: there are no scene files, or one is damaged, holds other objects than arrays or lacks something;
            nothing is written then.
        InputError: ``out`` cannot be written.
    """
    folder = Path(npz_folder)
    files = sorted(folder.glob("*.npz"), key=lambda file: natural_key(file.name)) if folder.is_dir() else []
    if not files:
        raise DatasetError(f"{folder}: no .npz scene files in this folder")
    lines = ["# name0 name1 rot0 rot1 K0 K1 T_0to1"]
    count = 0
    for file in files:
        pairs = list(_scene_lines(file))
        lines += [f"# {file.name}: {len(pairs)} pairs", *pairs]
        count += len(pairs)
    atomic_write_text(out, "\n".join(lines) + "\n")
    return count


def read_npz(path: str | Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file, object arrays too, by an unpickler that cannot run code.

    Raises:
        DatasetError: the file is missing or damaged, or an object array holds something else than arrays, numbers,
            strings, lists, tuples and dictionaries.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MOST_MEMBERS or sum(member.file_size for member in members) > _MOST_BYTES:
                raise DatasetError(
                    f"{path}: has {len(members)} arrays of {sum(m.file_size for m in members) / MEGABYTE:.0f} MB, more "
                    f"than {_MOST_MEMBERS} or {_MOST_BYTES / MEGABYTE:.0f} MB: not a scene file of LoFTR"
                )
            return {member.filename.removesuffix(".npy"): _read_array(archive.read(member)) for member in members}
    except FileNotFoundError:
        raise DatasetError(f"{path}: file is missing") from None
    except pickle.UnpicklingError as error:
        raise DatasetError(f"{path}: {one_line(str(error))}") from None
    except _DAMAGE as error:
        reason = one_line(str(error) or type(error).__name__)
        raise DatasetError(f"{path}: is damaged or no .npz file ({reason})") from None


def _scene_lines(path: Path) -> Iterator[str]:
    scene = read_npz(path)
    missing = [name for name in _NEEDED if name not in scene]
    if missing:
        raise DatasetError(f"{path}: has no {', '.join(missing)}; not a MegaDepth scene file of LoFTR")
    for number, info in enumerate(scene["pair_infos"]):
        try:
            first, second = (int(index) for index in info[0])
            names = [str(scene["image_paths"][index]) for index in (first, second)]
            K0, K1 = (np.asarray(scene["intrinsics"][index], dtype=np.float64) for index in (first, second))
            T_cam0_world, T_cam1_world = (
                np.asarray(scene["poses"][index], dtype=np.float64).reshape(4, 4) for index in (first, second)
            )
            values = [*K0.reshape(9), *K1.reshape(9), *(T_cam1_world @ np.linalg.inv(T_cam0_world)).reshape(16)]
        except (TypeError, ValueError, IndexError, np.linalg.LinAlgError) as error:
            raise DatasetError(f"{path}: pair {number} is broken ({error})") from None
        if not np.isfinite(values).all() or any(not name or any(map(str.isspace, name)) for name in names):
            raise DatasetError(f"{path}: pair {number} has numbers that are not finite or a name with white space")
        yield " ".join([*names, "0", "0", *(repr(float(value)) for value in values)])


def _read_array(data: bytes) -> NDArray[Any]:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read_header(file)
    rest = data[file.tell() :]
    if not dtype.hasobject:
        return np.frombuffer(rest, dtype=dtype).reshape(shape, order="F" if is_fortran else "C")
    _check_pickle(rest)
    array = _plain(_ArrayUnpickler(io.BytesIO(rest)).load(), _Budget())
    if not isinstance(array, np.ndarray):
        raise ValueError("holds no array")
    return array


def _check_pickle(data: bytes) -> None:
    """Refuse a pickle that would take far more memory than it has bytes.

    A number under which something is remembered is an index into a table, which grows to it: four bytes ask for
    gigabytes.
    """
    if len(data) > _MOST_PICKLED:
        raise ValueError(f"holds objects of {len(data) / MEGABYTE:.0f} MB")
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= cast("int", argument) <= count + 256:
            raise ValueError("is no pickle that numpy writes")


class _Budget:
    """How many values may still come: what is stored once may be named exponentially often."""

    def __init__(self) -> None:
        self.left = _MOST_VALUES

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise ValueError(f"holds more than {_MOST_VALUES} values")


class _ArrayUnpickler(pickle.Unpickler):
    """Loads arrays and numpy's scalars in plain containers; everything else is refused by name.

    Not even numpy's own functions are called on what the pickle says: its ``__setstate__`` can be made to take bytes
    for pointers. The classes below stand in for them, and :func:`_plain` makes arrays of what they hold.
    """

    def __init__(self, file: IO[bytes]) -> None:
        # latin1: as numpy reads arrays that Python 2 wrote.
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        allowed = _STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if allowed is None:
            raise pickle.UnpicklingError(f"holds '{module}.{name}', which is no array: not read, it may run code")
        return allowed


class _Ndarray:
    """Stands for the class ``numpy.ndarray``, an argument of :class:`_Array` that is not used."""


class _Dtype:
    """Stands for ``numpy.dtype``."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"([biuf][1248]?|O8?|[US]\d{1,6})", code):
            raise pickle.UnpicklingError(f"holds an array of type {code!r}: not read")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for ``numpy.core.multiarray._reconstruct`` and what it gives."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def array(self, budget: _Budget) -> NDArray[Any]:
        _, shape, stored, is_fortran, data = self.state
        dtype = stored.dtype
        if dtype.hasobject:
            flat = np.empty(len(data), dtype=object)
            for index, item in enumerate(data):
                flat[index] = _plain(item, budget)
        else:
            flat = np.frombuffer(_bytes(data), dtype=dtype).astype(dtype.newbyteorder("="))
            budget.take(flat.size)
        return flat.reshape(shape, order="F" if is_fortran else "C")


def _scalar(stored: Any, data: Any) -> Any:
    """Stands for ``numpy.core.multiarray.scalar``."""
    return np.frombuffer(_bytes(data), dtype=stored.dtype)[0]


def _encode(text: Any, encoding: Any) -> bytes:
    """Stands for ``_codecs.encode``, by which pickles of protocol 2 spell bytes; other codecs do other things."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"holds text in encoding {encoding!r}: not read")
    return _bytes(text)


_STAND_INS: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy", "ndarray"): _Ndarray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


def _bytes(data: Any) -> bytes:
    if not isinstance(data, str | bytes):
        raise pickle.UnpicklingError(f"holds a {type(data).__name__} where bytes belong: not read")
    return data.encode("latin1") if isinstance(data, str) else data


def _plain(value: Any, budget: _Budget) -> Any:
    budget.take(1)
    if isinstance(value, _Array):
        return value.array(budget)
    if isinstance(value, list | tuple):
        return type(value)(_plain(item, budget) for item in value)
    if isinstance(value, dict):
        return {key: _plain(item, budget) for key, item in value.items()}
    return value
