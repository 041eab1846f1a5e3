"""Opens files: unpacks what is compressed and finds out how characters are written."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, AnyStr, BinaryIO, cast

from lopsided.data.excerpts import printable
from lopsided.data.options import DEFAULT, ReadOptions
from lopsided.data.storage import UserError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

OnBytes = Callable[[int], None]
Say = Callable[[str], None]
STANDARD_INPUT = Path("-")

_COMPRESSIONS = (".gz", ".bz2", ".zst")
_CHUNK = 1 << 20
_MOST_UNPACKED = 2.0  # gigabytes; --max-unpacked
_LONGEST_LINE = 32.0  # megabytes; --max-line
_MOST_BLANK = 2**22  # bytes of blanks and line ends on end in a text
_ENCODING_SAMPLE = 1 << 16
_ZSTANDARD_CHUNK = 1 << 14  # a few bytes may stand for many
_MARKS = (  # that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


def ignore(_: object) -> None:
    """Takes a count or a note that nobody wants."""


def shown(text: object, longest: int = 40) -> str:
    """Returns a text for a message: short, in quotation marks, without characters that a terminal obeys.

    >>> print(shown("a\\tb" + "c" * 100, 10))
    'a\\tbccccccc…'
    """
    text = str(text)
    part = text[:longest]
    while len(repr(part)) > 2 * longest:  # an escape has up to ten characters
        part = part[:-1]
    return repr(part if part == text else part + "…")


def typed(sign: str) -> str:
    """Returns the sign that a person means who cannot type it: a tab for \\t, a line end for \\n."""
    return {"\\t": "\t", "\\n": "\n", "\\\\": "\\"}.get(sign, sign)


def ending_of(path: Path) -> str:
    """Returns the ending of a file's name in lower case, without that of its compression; "" where there is none."""
    endings = [ending.lower() for ending in path.suffixes[-2:] if ending.lower() not in _COMPRESSIONS]
    return endings[-1] if endings else ""


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a file is read into a UserError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not {error.encoding} (bytes {error.object[error.start : error.start + 4]!r}); "
            "name the encoding, such as --encoding cp1252"
        ) from None
    except UnicodeError as error:
        raise UserError(f"{path}: {error}; name the encoding, such as --encoding utf-16-le") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: the compressed file is damaged or cut off ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: {printable(error.strerror or str(error), 100)}") from None


@contextlib.contextmanager
def open_bytes(path: Path, options: ReadOptions = DEFAULT, on_bytes: OnBytes = ignore) -> Iterator[io.BufferedReader]:
    """Opens a file, or standard input for "-", and unpacks gzip, bzip2 and Zstandard, known by their first bytes.

    on_bytes is called with the number of bytes read from the file itself. Raises UserError for what cannot be read,
    and for a compressed file that has more than options.max_unpacked gigabytes.
    """
    with readable(path), contextlib.ExitStack() as stack:
        file = sys.stdin.buffer if path == STANDARD_INPUT else stack.enter_context(path.open("rb"))
        counted: io.BufferedReader = io.BufferedReader(_Counted(file, on_bytes), _CHUNK)
        unpacked = _unpacked(path, counted, counted.peek(4)[:4])
        if unpacked is not counted:
            unpacked = _Counted(cast(BinaryIO, unpacked), Unpacked(path, options).add)
        yield io.BufferedReader(cast(io.RawIOBase, unpacked), _CHUNK)


def _unpacked(path: Path, file: io.BufferedReader, start: bytes) -> io.IOBase:
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstandard(path, file)
    return file


def _zstandard(path: Path, file: io.BufferedReader) -> io.IOBase:
    try:
        import zstandard
    except ImportError:
        raise UserError(
            f"{path}: needs the package zstandard; install it with: pip install 'lopsided[files]'"
        ) from None

    class Reader(io.RawIOBase):
        """Reads frame after frame. That of zstandard takes a file that is cut off for a complete one."""

        frame, packed, text = zstandard.ZstdDecompressor().decompressobj(), b"", b""

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: WriteableBuffer) -> int:
            while not self.text and (part := self.packed or file.read(_ZSTANDARD_CHUNK)):
                if self.frame.eof:
                    self.frame = zstandard.ZstdDecompressor().decompressobj()
                try:
                    self.text = self.frame.decompress(part)
                except zstandard.ZstdError as error:
                    raise EOFError(error) from None
                self.packed = self.frame.unused_data
            if not self.text and not self.frame.eof:
                raise EOFError("it ends within a frame")
            count = len(memoryview(buffer))
            part, self.text = self.text[:count], self.text[count:]
            memoryview(buffer)[: len(part)] = part
            return len(part)

    return Reader()


class _Counted(io.RawIOBase):
    """Tells how many bytes are read."""

    def __init__(self, file: BinaryIO, on_bytes: OnBytes) -> None:
        self._file, self._on_bytes = file, on_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        count = cast(int, self._file.readinto(buffer))  # type: ignore[attr-defined]
        self._on_bytes(count)
        return count


def without_gaps(path: Path, file: io.BufferedReader) -> io.BufferedReader:
    """Returns the bytes of a text, which raise UserError where nothing but blanks and line ends comes for long.

    Each empty line takes a reader a microsecond, so that a file of nothing else would keep it busy for minutes.
    """
    return io.BufferedReader(_WithoutGaps(path, file), _CHUNK)


class _WithoutGaps(io.RawIOBase):
    def __init__(self, path: Path, file: io.BufferedReader) -> None:
        self._path, self._file, self._blank = path, file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        part = self._file.read1(len(memoryview(buffer)))
        memoryview(buffer)[: len(part)] = part
        self._blank = self._blank + len(part) if part.isspace() else 0
        if self._blank > _MOST_BLANK:
            raise UserError(f"{self._path}: more than {_MOST_BLANK} blanks and line ends on end; is it the right file?")
        return len(part)


def read_unpacked(path: Path, options: ReadOptions, on_bytes: OnBytes = ignore) -> bytes:
    """Returns all bytes of a file, unpacked."""
    with open_bytes(path, options, on_bytes) as file:
        return b"".join(iter(lambda: file.read(_CHUNK), b""))


class Unpacked:
    """Counts the bytes that a file unpacks to; what it has on the disk is never too much."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self._path, self._gigabytes, self._size = path, options.max_unpacked or _MOST_UNPACKED, 0
        self._most = max(self._gigabytes * 10**9, path.stat().st_size if path.is_file() else 0)
        self._has_option = options is not DEFAULT

    def add(self, size: int) -> None:
        """Raises UserError for too many bytes in all."""
        self._size += size
        if self._size > self._most:
            enough = max(2 * self._gigabytes, self._size // 10**9 + 1)  # of a stream it is not known how many follow
            more = f"--max-unpacked {enough:g}, or save it without compression"
            way = more if self._has_option else "save it as .npy"
            raise UserError(f"{self._path}: unpacks to more than {self._gigabytes:g} GB; where it is meant to: {way}")


def check_archive(path: Path, archive: zipfile.ZipFile, options: ReadOptions) -> None:
    """Raises UserError where the files of an archive have too many bytes; no more is read of each than it says."""
    Unpacked(path, options).add(sum(member.file_size for member in archive.infolist()))


@contextlib.contextmanager
def open_text(
    path: Path, options: ReadOptions = DEFAULT, say: Say = ignore, on_bytes: OnBytes = ignore
) -> Iterator[io.TextIOWrapper]:
    """Opens a text file; its line ends stay as they are.

    Without options.encoding it is UTF-8, what a byte order mark says, or what charset-normalizer finds likely, which is
    said.
    """
    with open_bytes(path, options, on_bytes) as packed:
        file = without_gaps(path, packed)
        start = file.peek(_CHUNK)
        name = options.encoding or _find_encoding(path, start, options, say)
        try:
            if start.startswith(codecs.BOM_UTF8) and codecs.lookup(name).name == "utf-8":
                name = "utf-8-sig"
            text = io.TextIOWrapper(file, encoding=name, newline="")
        except LookupError:
            raise UserError(f"no encoding {shown(name)}; give one such as --encoding cp1252") from None
        yield text


def read_lines(
    path: Path, options: ReadOptions = DEFAULT, say: Say = ignore, on_bytes: OnBytes = ignore
) -> Iterator[str]:
    """Yields the lines of a text file, with their ends. Raises UserError where it is no text, or ends too early."""
    with open_text(path, options, say, on_bytes) as text:
        for number, line in enumerate(limited_lines(path, text, options), 1):
            check_line(path, number, line)
            yield line


def limited_lines(path: Path, file: IO[AnyStr], options: ReadOptions, first: int = 1) -> Iterator[AnyStr]:
    """Yields the lines of a file, of which the first has that number. Raises UserError for one that is too long.

    No more of it is read than options.max_line allows: a small compressed file may hold a line of gigabytes.
    """
    most = longest_line(options)
    for number in count(first):
        line = file.readline(most + 1)
        if len(line) > most:
            raise too_long(f"{path}, line {number}", options)
        if not line:
            break
        yield line


def longest_line(options: ReadOptions) -> int:
    """Returns how many characters a line may have."""
    return int((options.max_line or _LONGEST_LINE) * 10**6)


def too_long(where: str, options: ReadOptions) -> UserError:
    """Returns the error for a line, or what stands for one, that has more."""
    most = options.max_line or _LONGEST_LINE
    return UserError(f"{where}: longer than {most:g} MB; where a row is so long: --max-line {2 * most:g}")


def check_line(path: Path, number: int, line: str) -> None:
    if "\0" in line:
        raise UserError(f"{path}, line {number}: a NUL character, which no text holds; is it a text file?")


def _find_encoding(path: Path, start: bytes, options: ReadOptions, say: Say) -> str:
    for mark, name in _MARKS:
        if start.startswith(mark):
            if name != "utf-8-sig":
                say(f"encoding: {name.upper()}, as its byte order mark says")
            return name
    zeros = [start[parity:4096:2].count(0) for parity in (0, 1)]
    if max(zeros) > 0.3 * len(start[:4096]) / 2 and min(zeros) == 0:  # every other byte of Latin letters is zero
        name = "utf-16-be" if zeros[0] else "utf-16-le"
        say(f"encoding: {name.upper()}, since every other byte is zero (change it with --encoding)")
        return name
    strange = _not_utf8(path, start, options)
    if not strange:
        return "utf-8"
    lines = [line for line in strange.splitlines(keepends=True) if not line.isascii()]
    damaged = [line for line in lines if not _is_utf8(line)]
    if 2 * len(damaged) < len(lines):  # in no other encoding most lines look like UTF-8
        raise UserError(
            f"{path}: UTF-8 but for {len(damaged)} damaged lines, such as {shown(damaged[0][:30])}; if they may lose "
            "those characters: iconv -c -f utf-8 -t utf-8"
        )
    likely = _likely_encoding(b"".join(lines)[:_ENCODING_SAMPLE])
    if likely is None:
        raise UserError(f"{path}: not UTF-8 text, and its encoding cannot be told; give it, such as --encoding cp1252")
    say(f"encoding: not UTF-8; {likely}, as its bytes suggest (change it with --encoding)")
    return likely


def _not_utf8(path: Path, start: bytes, options: ReadOptions) -> bytes:
    """Returns a part of the file that is not UTF-8, empty if there is none. Of a pipe only the start is looked at."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with contextlib.ExitStack() as stack:
        parts = iter([start])
        if path != STANDARD_INPUT and path.is_file():
            file = stack.enter_context(open_bytes(path, options))
            parts = iter(lambda: file.read(_CHUNK), b"")
        for part in parts:
            try:
                decoder.decode(part)
            except UnicodeDecodeError:
                return part
    return b""


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _likely_encoding(sample: bytes) -> str | None:
    """Returns the encoding in which a text reads best; cp1252 where nothing speaks against it."""
    from charset_normalizer import from_bytes

    matches = from_bytes(sample)
    best = matches.best()
    if best is None:
        return None
    alike = [match for match in matches if match.chaos <= best.chaos + 0.02 and match.coherence >= best.coherence - 0.1]
    return "cp1252" if any("cp1252" in match.could_be_from_charset for match in alike) else best.encoding
