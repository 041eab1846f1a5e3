"""Makes files of rows as people have them, and damages them."""

import bz2
import gzip
import json
from random import Random

PIECES = (
    *(
        b'"',
        b"'",
        b",",
        b";",
        b"\t",
        b"|",
        b":",
        b"\n",
        b"\r",
        b"\r\n",
        b"\\",
        b"[",
        b"]",
        b"{",
        b"}",
        b"(",
        b")",
        b"#",
    ),
    *(
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\xe2\x80\xae",
        b"\x1b[31m",
        b"\x1b]0;x\x07",
        b"\xc2\x9b",
        b"\x7f",
    ),
    *(b"1e999", b"-1e999", b"NaN", b"nan", b"9" * 30, b"9" * 5000, b"-1", b"2147483648", b"0.5", b"1_0", b"\\ud800"),
    *(b'"\\u0000"', b"null", b"true", b"[" * 50, b"[" * 20_000, b'{"a":' * 2000, b"=1+1", b"@attribute", b"%", b"?"),
    *(
        b"__label__",
        b"a" * 300,
        b"text",
        b"labels",
        b"e\xcc\x81",
        b"\xc3",
        b"sep=;\n",
        b"}, {",
        b"2 3 4\n",
        b"qid:1",
        b"#",
        b"\xc2\x9b",
    ),
)
LONG = 5000  # times that a piece may be repeated


def damaged(content: bytes, random: Random) -> bytes:
    """The content with one to four things wrong, as editors, programs, disks and attackers do it."""
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        content = random.choice(_WAYS)(content, random)
    return content


def _slice(content: bytes, random: Random) -> tuple[int, int]:
    start = random.randint(0, len(content))
    return start, min(len(content), start + random.choice((1, 1, 2, 5, 20, 100)))


def _flip(content: bytes, random: Random) -> bytes:
    if not content:
        return content
    place = random.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :]


def _insert(content: bytes, random: Random) -> bytes:
    place = random.randint(0, len(content))
    return content[:place] + random.choice(PIECES) + content[place:]


def _replace(content: bytes, random: Random) -> bytes:
    start, end = _slice(content, random)
    return content[:start] + random.choice(PIECES) + content[end:]


def _delete(content: bytes, random: Random) -> bytes:
    start, end = _slice(content, random)
    return content[:start] + content[end:]


def _double(content: bytes, random: Random) -> bytes:
    start, end = _slice(content, random)
    return content[:end] + content[start:end] * random.choice((1, 2, 100)) + content[end:]


def _repeat(content: bytes, random: Random) -> bytes:
    place, piece = random.randint(0, len(content)), random.choice(PIECES)
    return content[:place] + piece[:8] * random.choice((10, 1000, LONG)) + content[place:]


def _swap(content: bytes, random: Random) -> bytes:
    a, b = sorted((_slice(content, random), _slice(content, random)))
    if a[1] > b[0]:
        return content
    return content[: a[0]] + content[b[0] : b[1]] + content[a[1] : b[0]] + content[a[0] : a[1]] + content[b[1] :]


def _cut(content: bytes, random: Random) -> bytes:
    return content[: random.randint(0, len(content))]


def _drop_line(content: bytes, random: Random) -> bytes:
    lines = content.splitlines(keepends=True)
    del lines[random.randrange(len(lines)) :][:1]
    return b"".join(lines)


def _shuffle_lines(content: bytes, random: Random) -> bytes:
    lines = content.splitlines(keepends=True)
    random.shuffle(lines)
    return b"".join(lines)


def _encode(content: bytes, random: Random) -> bytes:
    name = random.choice(("utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-8-sig"))
    return content.decode("utf-8", "replace").encode(name, "replace")


def _pack(content: bytes, random: Random) -> bytes:
    packed = random.choice((gzip.compress, bz2.compress))(content)
    return _cut(packed, random) if random.random() < 0.5 else packed


def _drop(content: bytes, random: Random) -> bytes:
    return _drop_line(content, random) if content.count(b"\n") > 1 else content


_WAYS = (
    *(_flip, _insert, _insert, _replace, _replace, _delete, _double, _repeat, _swap, _cut, _drop, _shuffle_lines),
    *(_encode, _pack),
)

WORDS = (
    *(
        "goal",
        "song",
        "bread",
        "match",
        "a",
        "the",
        "über",
        "naïve",
        "日本",
        "x1",
        "10",
        "0",
        "1",
        "no",
        "true",
        "null",
    ),
    *("a,b", "a;b", 'say "hi"', "it's", "tab\there", "new\nline", "\\", "[x]", "{y}", "#tag", "50%", "ﬁ", "e\u0301"),
)
NAMES = ("sport", "music", "food", "Sci-Fi", "short film", "é", "x", "10", "c++", "a/b")


def text(random: Random, words: tuple[str, ...] = WORDS) -> str:
    return " ".join(random.choice(words) for _ in range(random.randint(1, 6)))


def plain_text(random: Random) -> str:
    """A text without signs that a format of lines needs."""
    return text(random, tuple(word for word in WORDS if word.isalnum()))


def labels(random: Random) -> list[str]:
    return random.sample(NAMES, random.randint(0, 3))


def as_json(value: object, random: Random) -> bytes:
    return json.dumps(value, ensure_ascii=random.random() < 0.5).encode()
