"""The format of a journal file, its lock, and how a file is taken over.

Standard library only, and no import from this package: `guardian_process.py` loads this file alone.

A file is JSON Lines. A session that may bill is `{"v": 1, "made": ID, "at": UNIX, "cap": SECONDS,
"api": URL, "salt": HEX, "key": HEX}`; `{"v": 1, "ended": ID, "at": UNIX, "by": WHO}` removes it.
With `by` "guardian" the end is still to be reported, by the next sweep.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import json
import os
import secrets
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

SUFFIX = ".jsonl"
LARGEST = 1 << 20
"""Bytes; a larger file was not written by a journal."""
MARGIN = 1800.0
"""Seconds beyond its cap for which a session may still be alive: it may have been queued, and
Runway may use another cap than the requested one (the longest is this long).
"""
FORGOTTEN = 86_400.0
"""Seconds after which a file that cannot be understood is removed."""
_VERSION = 1
_LONGEST_ID = 200
_LOCKED = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}


class NotAJournalError(Exception):
    """A file that is not a journal; the text says why."""


# -- the file and its lock -------------------------------------------------------------------------


class Held:
    """A descriptor that no forked child keeps. A lock, like the end of a pipe, is held by all
    processes that have the descriptor, so a forked child that outlives its parent would make the
    parent look alive.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        """The descriptor; -1 if it is closed, or in a forked child."""
        _held.add(self)

    def write(self, data: bytes) -> None:
        """Write all of it, or raise `OSError`. Data that was handed to the system survives this
        process. It is not forced to the disk: if the machine goes down, nothing is ended in time
        anyway.
        """
        if os.write(self.fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read(self) -> bytes:
        """Read all of it, `LARGEST` bytes at most."""
        os.lseek(self.fd, 0, os.SEEK_SET)
        parts = []
        left = LARGEST
        while left and (part := os.read(self.fd, left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def remove(self, path: Path) -> None:
        """Close it, and remove the file."""
        if sys.platform == "win32":  # which cannot remove an open file
            self.close()
        with contextlib.suppress(OSError):
            path.unlink()
        self.close()

    def close(self) -> None:
        """Idempotent. Frees the lock."""
        _held.discard(self)
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


_held: set[Held] = set()
"""The descriptors of this process, for `_let_go()` only."""


def _let_go() -> None:
    """Runs in a forked child. Closing frees no lock, because the parent has the descriptor, too."""
    for held in _held:
        with contextlib.suppress(OSError):
            os.close(held.fd)
        held.fd = -1
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def create(folder: Path) -> tuple[Path, Held]:
    """Make a new file for this process, locked. Raises `OSError` if that is not possible."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        path = folder / f"{os.getpid()}-{secrets.token_hex(6)}{SUFFIX}"
        held = _opened(path, os.O_CREAT | os.O_EXCL)
        try:
            # A sweep may have come in between, and taken the empty file for one that was left.
            if _lock(held.fd) and os.fstat(held.fd).st_nlink:
                return path, held
        except OSError:
            held.remove(path)
            raise
        held.close()


def take_over(path: Path) -> Held | None:
    """Open and lock a file whose owner is gone; None if another process holds it, or it was
    removed.

    Raises:
        NotAJournalError: a link, a pipe, another user's, or too large.
        OSError: it cannot be opened.
    """
    try:
        held = _opened(path, 0)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise NotAJournalError("no regular file") from None
        raise
    try:
        _check(os.fstat(held.fd))
        if _lock(held.fd) and os.fstat(held.fd).st_nlink:
            return held
    except BaseException:
        held.close()
        raise
    held.close()
    return None


def _opened(path: Path, flags: int) -> Held:
    # Opening a pipe would block; a link leads elsewhere.
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT"):
        flags |= getattr(os, name, 0)
    return Held(os.open(path, os.O_RDWR | os.O_APPEND | flags, 0o600))


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotAJournalError("no regular file")
    if found.st_nlink > 1:
        raise NotAJournalError("it has several names")
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise NotAJournalError("another user's")
    if found.st_size > LARGEST:
        raise NotAJournalError("too large")


def _lock(fd: int) -> bool:
    """Lock it for the life of the descriptor; False if another process holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            # On Windows a locked range cannot be read by others, so a byte behind the end is
            # locked.
            os.lseek(fd, LARGEST * 2, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _LOCKED:
            return False
        raise
    return True


# -- its content -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A session that may bill.

    Attributes:
        api: where Runway is.
        salt, key: the fingerprint of the API key that made it.
        made_at: Unix time in seconds.
        cap: seconds after which Runway ends it.
    """

    session_id: str
    api: str
    salt: str
    key: str
    made_at: float
    cap: float

    def is_over(self, now: float) -> bool:
        """True if Runway must have ended it by now."""
        return now - self.made_at > self.cap + MARGIN

    def line(self) -> bytes:
        return _line(
            made=self.session_id,
            at=self.made_at,
            cap=self.cap,
            api=self.api,
            salt=self.salt,
            key=self.key,
        )


@dataclass
class Contents:
    """The content of a file.

    Attributes:
        alive: sessions that may bill, by id.
        untold: sessions that the guardian has ended, with the Unix time.
        damaged: number of lines that cannot be read.
        unknown: number of lines of another version.
    """

    alive: dict[str, Entry] = field(default_factory=dict)
    untold: list[tuple[Entry, float]] = field(default_factory=list)
    damaged: int = 0
    unknown: int = 0


def ended_line(session_id: str, at: float, by: str) -> bytes:
    return _line(ended=session_id, at=at, by=by)


def _line(**fields: object) -> bytes:
    # A line break before it as well: the line before may be incomplete.
    return b"\n" + json.dumps({"v": _VERSION, **fields}).encode() + b"\n"


def parse(data: bytes) -> Contents:
    """Never raises: lines that cannot be read are counted, and the rest is read."""
    contents = Contents()
    for line in data.split(b"\n"):
        if not line.strip():
            continue
        try:
            _read(line, contents)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            contents.damaged += 1
    return contents


def _read(line: bytes, contents: Contents) -> None:
    found = json.loads(line)
    if found["v"] != _VERSION:
        contents.unknown += 1
    elif "made" in found:
        entry = Entry(
            session_id=_id(found["made"]),
            api=_text(found["api"]),
            salt=_text(found["salt"]),
            key=_text(found["key"]),
            made_at=_seconds(found["at"]),
            cap=_seconds(found["cap"]),
        )
        contents.alive[entry.session_id] = entry
    else:
        at = _seconds(found["at"])
        entry_or_none = contents.alive.pop(_id(found["ended"]), None)
        if entry_or_none is not None and found["by"] == "guardian":
            contents.untold.append((entry_or_none, at))


def _id(value: object) -> str:
    text = _text(value)
    if not 0 < len(text) <= _LONGEST_ID or not text.isprintable():
        raise ValueError("no id")
    return text


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or not -1e12 < value < 1e12:
        raise TypeError("no time")
    return float(value)


# -- its owner -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    """Identifies whose sessions these are: one API key at one Runway address."""

    api: str
    salt: str
    key: str

    @staticmethod
    def of(api_secret: str, base_url: str) -> Account:
        """With a new salt."""
        salt = secrets.token_hex(16)
        return Account(same_address(base_url), salt, fingerprint(api_secret, salt))

    def entry(self, session_id: str, made_at: float, cap: float) -> Entry:
        return Entry(session_id, self.api, self.salt, self.key, made_at, cap)


def made_with(entry: Entry, api_secret: str, base_url: str) -> bool:
    """True if this key, at this Runway address, can end it."""
    if entry.api != same_address(base_url):
        return False
    return hmac.compare_digest(entry.key.encode(), fingerprint(api_secret, entry.salt).encode())


def fingerprint(api_secret: str, salt: str) -> str:
    """Distinguishes keys without revealing them: 64 bits, which countless keys share, and salted,
    so that two files of the same key differ.
    """
    digest = hashlib.blake2b(api_secret.strip().encode(), key=salt.encode()[:64], digest_size=8)
    return digest.hexdigest()


def same_address(base_url: str) -> str:
    return base_url.strip().rstrip("/")
