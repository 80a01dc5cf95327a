"""Identical and nearly identical images, found by digests and by perceptual hashes of the decoded pixels."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.data.dataset import in_chunks

Rows = NDArray[np.int64]

# Measured on CIFAR-10: these limits find most of the pairs that look alike to the eye, and almost nothing else.
_MOST_BITS_APART = 8
_LEAST_CORRELATION = 0.98
_ORDERS = 24
_NEIGHBOURS = 4

_HASH_SIDE = 8
# A difference below half a grey level is noise: without this, flat areas would hash at random.
_LEAST_STEP = 0.5
_GREY = np.array([0.299, 0.587, 0.114], np.float32)
# Their thumbnails fit a processor's cache.
_CHUNK_PAIRS = 2**10


@dataclass(frozen=True)
class Fingerprints:
    """Of N images, a few hundred bytes each, so that nothing else needs their pixels again.

    `digests` of the pixels, uint64 (N, 2); `hashes`, dHash, uint64 (N,); `thumbnails`, 8×8 colours in 256ths of a
    level, uint16 (N, 192); `constant`, whether an image is of one colour, bool (N,).
    """

    digests: NDArray[np.uint64]
    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint16]
    constant: NDArray[np.bool_]


@dataclass(frozen=True)
class Groups:
    """G groups of rows: `rows` has those of all groups one after the other, `starts` (G,) where each group begins.

    The rows of a group are sorted, the groups stand in the order of their first rows.
    """

    rows: Rows
    starts: Rows

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def sizes(self) -> Rows:
        """The number of rows of each group, int64 (G,)."""
        return np.diff(self.starts, append=len(self.rows))

    def first(self, count: int) -> list[Rows]:
        """The rows of the first `count` groups."""
        return np.split(self.rows, self.starts[1 : count + 1])[: min(count, len(self))]

    def select(self, chosen: NDArray[np.bool_]) -> "Groups":
        """The groups where `chosen` (G,) says so."""
        sizes = self.sizes
        return Groups(self.rows[np.repeat(chosen, sizes)], np.cumsum(sizes[chosen]) - sizes[chosen])

    def distinct(self, values: NDArray[np.int64]) -> Rows:
        """How many different ones of `values` (one for each row there is, 0 or more) each group has, int64 (G,)."""
        group = np.repeat(np.arange(len(self)), self.sizes)
        span = int(values.max(initial=0)) + 1
        return np.bincount(np.unique(group * span + values[self.rows]) // span, minlength=len(self))


def fingerprint(images: NDArray[np.uint8]) -> Fingerprints:
    """Compute the fingerprints of images uint8 (N, S, S, 3), which may be memory-mapped; each pixel is read once.

    A dHash says for 8×8 places of the grey image whether it becomes brighter to the right (Krawetz 2013).
    """
    count, side = len(images), images.shape[1]
    digests = np.empty((count, 2), np.uint64)
    hashes = np.empty(count, np.uint64)
    thumbnails = np.empty((count, _HASH_SIDE * _HASH_SIDE * 3), np.uint16)
    constant = np.empty(count, np.bool_)
    down, across = _averaging(side, _HASH_SIDE), _averaging(side, _HASH_SIDE + 1).T
    for part, pixels in in_chunks(images, "checking"):
        contents = b"".join(hashlib.blake2b(image, digest_size=16).digest() for image in pixels)
        digests[part] = np.frombuffer(contents, np.uint64).reshape(-1, 2)
        constant[part] = (pixels == pixels[:, :1, :1]).all(axis=(1, 2, 3))
        levels = pixels.astype(np.float32)
        small = down @ (levels @ _GREY) @ across
        brighter = np.diff(small, axis=2) > _LEAST_STEP
        hashes[part] = _packed(brighter.reshape(len(pixels), 64))
        thumbnails[part] = _thumbnails(levels, down)
    return Fingerprints(digests, hashes, thumbnails, constant)


def identical_groups(prints: Fingerprints) -> Groups:
    """Find groups of rows with the same pixels."""
    return _grouped(_content(prints), np.arange(len(prints.digests)))


def near_groups(prints: Fingerprints) -> Groups:
    """Find groups of rows that look the same without being identical; of identical ones only the first is compared.

    Rows are neighbours if their hashes are at most 8 bits apart and their 8×8 thumbnails correlate by 0.98; what
    neighbours connect, if only through others, is a group. Candidates are close to one another in one of several
    sortings of the hashes by randomly permuted bits (Charikar 2002): time grows with N log N, memory with N, whatever
    the images look like, and a few pairs may be missed.
    """
    _, first = np.unique(_content(prints), return_index=True)
    rows = np.sort(first[~prints.constant[first]])
    group = np.arange(len(rows))
    for left, right in _close_hashes(prints.hashes[rows]):
        # A link within a group adds nothing: where all images look alike, these are almost all.
        apart = group[left] != group[right]
        alike = _look_alike(prints.thumbnails, rows[left[apart]], rows[right[apart]])
        group = _linked(group, left[apart][alike], right[apart][alike])
    return _grouped(group, rows)


def _close_hashes(hashes: NDArray[np.uint64]) -> Iterator[tuple[Rows, Rows]]:
    """Pairs of positions of hashes that differ in few bits, at most N pairs at a time."""
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    order_of_bits = np.random.default_rng(0)
    for _ in tqdm(range(_ORDERS), desc="comparing", unit=" sortings", **bar_options()):
        order = np.argsort(_packed(bits[:, order_of_bits.permutation(64)]), kind="stable")
        for step in range(1, _NEIGHBOURS + 1):
            left, right = order[:-step], order[step:]
            close = np.bitwise_count(hashes[left] ^ hashes[right]) <= _MOST_BITS_APART
            yield left[close], right[close]


def _look_alike(thumbnails: NDArray[np.uint16], left: Rows, right: Rows) -> NDArray[np.bool_]:
    """Whether the images at the rows `left` and `right` (P,) correlate, bool (P,)."""
    alike = np.empty(len(left), np.bool_)
    for start in range(0, len(left), _CHUNK_PAIRS):
        part = slice(start, start + _CHUNK_PAIRS)
        pair = _unit_vectors(thumbnails[left[part]]), _unit_vectors(thumbnails[right[part]])
        alike[part] = np.einsum("nd,nd->n", *pair) >= _LEAST_CORRELATION
    return alike


def _linked(group: NDArray[Any], left: Rows, right: Rows) -> NDArray[Any]:
    """The group of each position (N,) after those of the positions `left` and `right` (P,) are joined."""
    if not len(left):
        return group
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components  # what only reads the findings has no use for them

    links = np.ones(len(left), np.bool_), (group[left], group[right])
    count = int(group.max()) + 1
    _, joined = connected_components(coo_array(links, shape=(count, count)), directed=False)
    return np.asarray(joined[group])


def _content(prints: Fingerprints) -> Rows:
    """A number for each image (N,), the same for identical pixels."""
    order = np.lexsort(prints.digests.T)
    changes = np.diff(prints.digests[order], axis=0).any(axis=1)
    content = np.empty(len(order), np.int64)
    content[order] = np.concatenate([[0], np.cumsum(changes)])
    return content


def _thumbnails(levels: NDArray[np.float32], shrink: NDArray[np.float32]) -> NDArray[np.uint16]:
    """8×8 colours of images (N, S, S, 3), uint16 (N, 192): in 256ths, which is exact at 32, 64 and 128 px."""
    count, side = levels.shape[:2]
    lines = (shrink @ levels.reshape(count, side, side * 3)).reshape(count, _HASH_SIDE, side, 3)
    return np.asarray(np.rint(256 * (shrink @ lines)), np.uint16).reshape(count, -1)


def _unit_vectors(thumbnails: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Thumbnails (P, 192) around their mean, of length 1."""
    vectors = thumbnails.astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-4)
    return vectors


def _averaging(side: int, cells: int) -> NDArray[np.float32]:
    """The matrix (cells, side) that averages `side` pixels into `cells` of equal width."""
    edges = np.linspace(0, side, cells + 1)[:, None]
    pixel = np.arange(side)
    overlap = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    weights = np.maximum(overlap, 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _packed(bits: NDArray[np.bool_] | NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Rows of 64 bits as whole numbers."""
    packed = np.ascontiguousarray(np.packbits(bits, axis=1))
    return packed.view(">u8")[:, 0].astype(np.uint64)


def _grouped(labels: NDArray[Any], rows: Rows) -> Groups:
    """The groups of two or more of the sorted `rows` (N,) that have the same one of `labels` (N,)."""
    _, first, label, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(sizes[label] > 1)
    begin = first[label[repeated]]
    order = np.argsort(begin, kind="stable")
    return Groups(rows[repeated[order]], np.unique(begin[order], return_index=True)[1])
