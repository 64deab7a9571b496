#!/usr/bin/env python3
"""Forges an audit log of hsmac as somebody would who may write all of its files; shares no code with hsmac.

audit_forge.py FROM TO copies the log in FROM to TO with one record changed in its first segment, and computes anew
whatever can be computed: checksums, trees, checkpoints. What it has not is the key of the seals.
"""

import base64
import pathlib
import re
import struct
import sys

from audit_tree import leaf_hash, node_hash

MAGIC = b"hsmac audit 1\n"
TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    TABLE.append(byte)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


class Compact:
    """A growing tree, of which only the perfect subtrees are kept."""

    def __init__(self):
        self.size, self.subtrees = 0, []

    def push(self, leaf):
        hash, size = leaf, self.size
        while size & 1:
            hash, size = node_hash(self.subtrees.pop(), hash), size >> 1
        self.subtrees.append(hash)
        self.size += 1

    def root(self):
        *others, root = self.subtrees
        for left in reversed(others):
            root = node_hash(left, root)
        return root


def varint(number):
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def header(origin, tree):
    """hsmac.audit.v1.SegmentHeader, encoded by hand."""
    out = b"\x0a" + varint(len(origin)) + origin
    if tree.size:
        out += b"\x10" + varint(tree.size)
    for subtree in tree.subtrees:
        out += b"\x1a\x20" + subtree
    return out


def main(source, target):
    source, target = pathlib.Path(source), pathlib.Path(target)
    target.mkdir(mode=0o700)
    tree, roots, changed = Compact(), {}, False
    origin = (source / "checkpoint").read_bytes().split(b"\n")[0]

    def rewritten(text):
        lines = text.split(b"\n")
        lines[2] = base64.b64encode(roots[int(lines[1])])
        return b"\n".join(lines)

    for segment in sorted(source.glob("*.audit")):
        data, out, at = segment.read_bytes(), MAGIC, len(MAGIC)
        while at < len(data):
            length, _, kind = struct.unpack_from("<IIB", data, at)
            body, at = data[at + 9 : at + 9 + length], at + 9 + length
            before = tree.size
            if kind == 0:
                body = header(origin, tree)
            elif kind == 1:
                # A request ID: field 9, 16 bytes.
                place = re.search(rb"\x4a\x10", body)
                if place and not changed:
                    end = place.end()
                    body, changed = body[:end] + bytes([body[end] ^ 1]) + body[end + 1 :], True
                tree.push(leaf_hash(body))
            else:
                if kind != 4:
                    roots[tree.size] = tree.root()
                body = rewritten(body)
            checksum = crc32c(struct.pack("<QB", before, kind) + body)
            out += struct.pack("<IIB", len(body), checksum, kind) + body
        (target / segment.name).write_bytes(out)
    for name in ("checkpoint", "sealed-checkpoint"):
        (target / name).write_bytes(rewritten((source / name).read_bytes()))
    assert changed, "there was no call to change"


if __name__ == "__main__":
    main(*sys.argv[1:])
