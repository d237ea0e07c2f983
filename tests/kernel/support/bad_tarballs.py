# SPDX-License-Identifier: GPL-3.0-or-later
"""Tarballs that are refused, by what is wrong with them: what writes one, and what is said about it."""

from __future__ import annotations

import gzip
import lzma
import os
import struct
import tarfile

from .tarballs import DIR, FILE, GOOD, LINK, SYM, archive, packed


def cut(path, at):
    path.write_bytes(gzip.compress(archive(*GOOD, (FILE, "random", os.urandom(30000))))[:at])


def flipped(path):
    data = bytearray(gzip.compress(archive(*GOOD)))
    data[-8] ^= 1  # gzip's own checksum
    path.write_bytes(data)


def giant_header(path):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 32
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT)))


def tampered(**fields):
    """A header with these bytes, by the place at which they stand, and the checksum that it then has."""
    def write(path):
        header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
        for at, value in fields.items():
            header[int(at[1:]):int(at[1:]) + len(value)] = value
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        path.write_bytes(gzip.compress(bytes(header) + bytes(1024)))
    return write


def extended(kind, name, content=b"", **headers):
    """A member with these records of pax, which say otherwise than its header."""
    return holding((kind, name, content, {"pax_headers": headers}), layout=tarfile.PAX_FORMAT)


def raw(data):
    return lambda path: path.write_bytes(data)


def holding(*members, **options):
    return lambda path: packed(path, *members, **options)


BAD = {
    "a member outside": (holding((FILE, "../evil", b"x")), "leads outside"),
    "a member deep outside": (holding((FILE, "a/../../evil", b"x")), "leads outside"),
    "an absolute member": (holding((FILE, "/tmp/evil", b"x")), "absolute path"),
    "a relative symlink outside": (holding((SYM, "a/b", "../../x")), "leads outside"),
    "a hard link outside": (holding((LINK, "a", "../good.tar.gz")), "leads outside"),
    "an absolute hard link": (holding((LINK, "a", "/etc/passwd")), "absolute path"),
    "a hard link to nothing": (holding((LINK, "a", "b")), "no file before it"),
    "a hard link to a directory": (holding((DIR, "b"), (LINK, "a", "b")), "no file before it"),
    "a hard link through a symlink": (holding((SYM, "a", "/etc"), (LINK, "b", "a/passwd")), "no file before it"),
    "through an absolute symlink": (holding((SYM, "a", "/tmp"), (FILE, "a/evil", b"x")), "behind a, which is a sym"),
    "through a relative symlink": (holding((DIR, "b"), (SYM, "a", "b"), (FILE, "a/evil", b"x")), "which is a symlink"),
    "a directory over a symlink": (holding((SYM, "a", "/tmp"), (DIR, "a")), "twice"),
    "a symlink over a directory": (holding((DIR, "a"), (SYM, "a", "/tmp"), (FILE, "a/evil", b"x")), "twice"),
    "a file over a symlink": (holding((SYM, "a", "/tmp/evil"), (FILE, "a", b"x")), "twice"),
    "a file twice": (holding((FILE, "a", b"1"), (FILE, "./a", b"2")), "twice"),
    "a file behind a file": (holding((FILE, "a", b"1"), (FILE, "a/b", b"2")), "which is a file"),
    "a root that is a symlink": (holding((SYM, "./", "/tmp"), (FILE, "evil", b"x")), "for its root"),
    "a character device": (holding((tarfile.CHRTYPE, "dev/mem", b"", {"devmajor": 1, "devminor": 1})), "device node"),
    "a block device": (holding((tarfile.BLKTYPE, "dev/sda", b"", {"devmajor": 8})), "device node"),
    "a FIFO": (holding((tarfile.FIFOTYPE, "run/fifo")), "FIFO"),
    "an unknown type": (holding((b"Z", "a")), "unknown thing"),
    "an impossible owner": (holding((FILE, "a", b"", {"uid": 2 ** 32 - 1})), "impossible owner"),
    "a gzip cut in its data": (lambda path: cut(path, 20000), "cut short"),
    "a gzip cut in its trailer": (lambda path: cut(path, -4), "cut short"),
    "a wrong checksum of gzip": (flipped, "damaged"),
    "a tar cut short": (raw(gzip.compress(archive(*GOOD, (FILE, "a", b"x" * 9999))[:-6000])), "damaged"),
    "a tar without an end": (holding(*GOOD, end=False), "no end of archive"),
    "rubbish between members": (holding(*GOOD, end=False, tail=b"rubbish!" * 64 + bytes(1024)), "no end of archive"),
    "another archive behind it": (holding(*GOOD, tail=archive((FILE, "b", b"x"))), "after its end"),
    "rubbish behind the gzip": (lambda path: path.write_bytes(gzip.compress(archive(*GOOD)) + b"rubbish"), "damaged"),
    "a tar without gzip": (raw(archive(*GOOD)), "not a gzip file"),
    "text in a gzip": (raw(gzip.compress(b"no tar at all" * 99)), "not a tar archive"),
    "an empty file": (raw(b""), "not a"),
    "an archive of nothing": (raw(gzip.compress(bytes(10240))), "empty archive"),
    "a header of 4 GiB": (giant_header, "damaged|impossible length|cut short"),
    "a negative size": (tampered(_124=b"\xff" * 10 + struct.pack(">H", 0x10000 - 1024)), "size -|damaged|begins before"),
    "a sparse file of an exabyte": (tampered(_156=b"S", _483=tarfile.itn(1 << 60, 12, tarfile.GNU_FORMAT)),
                                    "more room than there is"),
    "a name with a NUL": (extended(FILE, "a", path="a\0b"), "impossible path"),
    "a name of 300 bytes": (holding((FILE, "\u00fc" * 150)), "impossible path of 300 bytes"),
    "a path of 5000 bytes": (holding((FILE, "d/" * 2500)), "impossible path of 5000 bytes"),
    "a tree 1000 deep": (holding((FILE, "d/" * 999 + "a")), "impossible path of 1999 bytes and 1000 names"),
    "a name that is no text, twice": (holding(GOOD[-1], GOOD[-1]), "lat\\xedn twice"),
    "a symlink to a NUL": (extended(SYM, "a", "b", linkpath="a\0b"), "impossible target"),
    "a symlink to 6000 bytes": (holding((SYM, "a", "\u00fc" * 3000)), "impossible target"),
    "a time that is none": (extended(FILE, "a", mtime="nan"), "impossible time, nan"),
    "a time beyond all": (extended(DIR, "a", mtime="-1e30"), "impossible time, -1e+30"),
    "an archive of xz": (raw(lzma.compress(archive(*GOOD))), "not a gzip file"),
    "a page of HTML": (raw(b"<!DOCTYPE html><title>404 Not Found</title>"), "not a gzip file"),
}
