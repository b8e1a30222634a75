"""CHARX: a zip of strangers, read whole into memory within bounds, and written again.

https://github.com/kwaroran/character-card-spec-v3 . Nothing is ever unpacked to a disk. Knows
nothing of what the members mean.
"""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Mapping

from elysia.core.errors import PersonaError

MAX_FILE = 128 << 20
MAX_UNPACKED = 256 << 20  # of all members together
MAX_MEMBERS = 2_000
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_charx(raw: bytes, where: str) -> dict[str, bytes]:
    """Path to content of every member, in the file's order. PersonaError for what is not safe.

    Refused: encrypted members, links, paths that leave the archive, two members of one name, more
    or larger members than the bounds, and sizes that are not what the archive says.
    """
    if len(raw) > MAX_FILE:
        raise PersonaError(f"{where}: the archive has more than {MAX_FILE >> 20} MB.")
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
        raise PersonaError(f"{where}: the archive is damaged ({error}); fetch it again.") from None


def write_charx(members: Mapping[str, bytes]) -> bytes:
    """A zip of `members`, the same bytes for the same members. Pictures and sound are stored as
    they are, texts deflated.
    """
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)  # dated 1980, so that equal cards are equal files
            info.external_attr = 0o644 << 16
            packed = name.endswith(".json")
            info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
            archive.writestr(info, content)
    return made.getvalue()


def _refuse_unsafe(members: list[zipfile.ZipInfo], where: str) -> None:
    if len(members) > MAX_MEMBERS:
        raise PersonaError(f"{where}: the archive has more than {MAX_MEMBERS} members.")
    if sum(member.file_size for member in members) > MAX_UNPACKED:
        raise PersonaError(
            f"{where}: the archive unpacks to more than {MAX_UNPACKED >> 20} MB; it is refused."
        )
    seen: set[str] = set()
    for member in members:
        # ZipInfo cuts a name at NUL and turns the system's separator; the spelling is judged.
        name = member.orig_filename
        if _leaves_archive(name):
            raise PersonaError(f"{where}: the member {name[:80]!r} leads out of the archive.")
        if member.filename in seen:
            raise PersonaError(f"{where}: the archive has two members named {name[:80]!r}.")
        seen.add(member.filename)
        if member.flag_bits & 0x1:
            raise PersonaError(f"{where}: the archive is encrypted; export it without a password.")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise PersonaError(f"{where}: the member {name[:80]!r} is a link.")
        if member.compress_type not in METHODS:
            raise PersonaError(
                f"{where}: the member {name[:80]!r} is packed in a way other than deflate."
            )


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
        raise PersonaError(f"{where}: {member.filename!r} is not of the size that it says.")
    return content
