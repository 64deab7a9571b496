#!/usr/bin/env python3
"""RFC 6962's tree over an audit log of hsmac, written from the RFC; shares no code with hsmac.

audit_tree.py HSMAC DIR reads the log in DIR, and compares its own root with each checkpoint in it and with what
`hsmac audit verify` says, and its own proofs with those of `hsmac audit prove`.
"""

import base64
import hashlib
import json
import pathlib
import struct
import subprocess
import sys


def leaf_hash(leaf):
    return hashlib.sha256(b"\0" + leaf).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def split(count):
    """The largest power of two that is smaller than count."""
    half = 1
    while half * 2 < count:
        half *= 2
    return half


class Tree:
    """Section 2.1, with the roots of perfect subtrees kept so that many roots are affordable."""

    def __init__(self):
        self.leaves = []
        self.perfect = {}

    def root(self, begin=0, end=None):
        end = len(self.leaves) if end is None else end
        if begin == end:
            return hashlib.sha256(b"").digest()
        if end - begin == 1:
            return self.leaves[begin]
        known = self.perfect.get((begin, end))
        if known:
            return known
        middle = begin + split(end - begin)
        root = node_hash(self.root(begin, middle), self.root(middle, end))
        if (end - begin) & (end - begin - 1) == 0:
            self.perfect[begin, end] = root
        return root

    def path(self, index, begin, end):
        """Section 2.1.1."""
        if end - begin == 1:
            return []
        middle = begin + split(end - begin)
        if index < middle:
            return self.path(index, begin, middle) + [self.root(middle, end)]
        return self.path(index, middle, end) + [self.root(begin, middle)]


def read(directory):
    """Yields (kind, bytes) of each frame of a log."""
    for segment in sorted(pathlib.Path(directory).glob("*.audit")):
        data = segment.read_bytes()
        magic = b"hsmac audit 1\n"
        assert data.startswith(magic), segment
        at = len(magic)
        while at < len(data):
            length, _checksum, kind = struct.unpack_from("<IIB", data, at)
            at += 9
            yield kind, data[at : at + length]
            at += length


def main(hsmac, directory):
    tree, checkpoints = Tree(), 0
    for kind, data in read(directory):
        if kind == 1:
            tree.leaves.append(leaf_hash(data))
        elif kind in (2, 3):
            _origin, size, root = data.decode().splitlines()
            assert int(size) == len(tree.leaves), (size, len(tree.leaves))
            assert base64.b64decode(root) == tree.root(), size
            checkpoints += 1
    size = len(tree.leaves)
    said = subprocess.run([hsmac, "audit", "verify", directory], check=True, capture_output=True, text=True).stdout
    assert said.splitlines()[-2:] == [str(size), base64.b64encode(tree.root()).decode()], said
    indices = sorted({0, 1, size // 3, size // 2, size - 2, size - 1})
    for index in indices:
        proof = subprocess.run([hsmac, "audit", "prove", directory, str(index)], check=True, capture_output=True, text=True)
        proof = json.loads(proof.stdout)
        assert leaf_hash(base64.b64decode(proof["record"])) == tree.leaves[index], index
        path = [base64.b64encode(one).decode() for one in tree.path(index, 0, size)]
        assert proof["path"] == path, index
    print(f"{size} records, {checkpoints} checkpoints, {len(indices)} proofs: both trees agree")


if __name__ == "__main__":
    main(*sys.argv[1:])
