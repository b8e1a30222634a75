"""CHARX archives: a zip with a card and its assets, read into memory within bounds, and written again.

Specification: https://github.com/kwaroran/character-card-spec-v3 . The files come from strangers, so
nothing is ever unpacked to a disk.
"""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Mapping

from elysia.core.errors import PersonaError

MAX_FILE = 128 << 20  # bytes
MAX_UNPACKED = 256 << 20  # bytes of all members together
MAX_MEMBERS = 2_000
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_charx(raw: bytes, where: str) -> dict[str, bytes]:
    """{path: content} of every member, in the file's order. Raises PersonaError for unsafe archives.

    Refused are encrypted members, links, paths that leave the archive, two members of one name, more or
    larger members than the bounds allow, and sizes that differ from the archive's own figures.
    """
    if len(raw) > MAX_FILE:
        raise PersonaError("core.archive_too_large", where=where, limit=MAX_FILE >> 20)
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = archive.infolist()
            _refuse_unsafe(members, where)
            return {
                member.filename: _read_member(archive, member, where)
                for member in members
                if not member.is_dir()
            }
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        ValueError,
        OSError,
    ) as error:
        raise PersonaError("core.archive_damaged", where=where, reason=str(error)) from None


def write_charx(members: Mapping[str, bytes]) -> bytes:
    """A zip of `members`: JSON deflated, pictures and sound stored. Equal members give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)  # dated 1980, so that equal cards are equal files
            info.external_attr = 0o644 << 16
            packed = name.endswith(".json")
            info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
            archive.writestr(info, content)
    return buffer.getvalue()


def _refuse_unsafe(members: list[zipfile.ZipInfo], where: str) -> None:
    if len(members) > MAX_MEMBERS:
        raise PersonaError("core.archive_too_many_members", where=where, limit=MAX_MEMBERS)
    if sum(member.file_size for member in members) > MAX_UNPACKED:
        raise PersonaError("core.archive_unpacks_too_large", where=where, limit=MAX_UNPACKED >> 20)
    names: set[str] = set()
    for member in members:
        # ZipInfo.filename ends at a NUL and has the system's separator replaced, so the name as it is
        # spelled in the archive is the one to judge.
        name = member.orig_filename
        problem = ""
        if _leaves_archive(name):
            problem = "core.member_leaves_archive"
        elif member.filename in names:
            problem = "core.member_twice"
        elif member.flag_bits & 0x1:
            problem = "core.archive_encrypted"
        elif stat.S_ISLNK(member.external_attr >> 16):
            problem = "core.member_is_link"
        elif member.compress_type not in METHODS:
            problem = "core.member_not_deflated"
        if problem:
            raise PersonaError(problem, where=where, member=repr(name[:80]))
        names.add(member.filename)


def _leaves_archive(name: str) -> bool:
    parts = name.rstrip("/").split("/")
    return (
        not name
        or "\\" in name
        or "\0" in name
        or (len(name) > 1 and name[1] == ":")
        or any(part in ("", ".", "..") for part in parts)
    )


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> bytes:
    with archive.open(member) as stream:
        content = stream.read(member.file_size + 1)
    if len(content) != member.file_size:
        raise PersonaError("core.member_wrong_size", where=where, member=repr(member.filename))
    return content
