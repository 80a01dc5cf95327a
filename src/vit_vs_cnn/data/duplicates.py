"""Identical and nearly identical images, found by digests and by perceptual hashes of the decoded pixels."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options

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
_CHUNK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Fingerprints:
    """Of N images: `digests` of the pixels, 16 bytes (N,); `hashes`, dHash, uint64 (N,); `constant`, bool (N,)."""

    digests: NDArray[np.void]
    hashes: NDArray[np.uint64]
    constant: NDArray[np.bool_]


def fingerprint(images: NDArray[np.uint8]) -> Fingerprints:
    """Compute the fingerprints of images uint8 (N, S, S, 3), which may be memory-mapped.

    A dHash says for 8×8 places of the grey image whether it becomes brighter to the right (Krawetz 2013).
    """
    count, side = len(images), images.shape[1]
    digests = np.empty(count, "V16")
    hashes = np.empty(count, np.uint64)
    constant = np.empty(count, np.bool_)
    down, across = _averaging(side, _HASH_SIDE), _averaging(side, _HASH_SIDE + 1).T
    chunk = max(1, _CHUNK_BYTES // images[0].nbytes)
    with tqdm(total=count, desc="checking", unit=" images", **bar_options()) as bar:
        for start in range(0, count, chunk):
            part = slice(start, start + chunk)
            pixels = np.array(images[part])
            digests[part] = [np.void(hashlib.blake2b(image, digest_size=16).digest()) for image in pixels]
            constant[part] = (pixels == pixels[:, :1, :1]).all(axis=(1, 2, 3))
            small = down @ (pixels.astype(np.float32) @ _GREY) @ across
            brighter = np.diff(small, axis=2) > _LEAST_STEP
            hashes[part] = _packed(brighter.reshape(len(pixels), 64))
            bar.update(len(pixels))
    return Fingerprints(digests, hashes, constant)


def identical_groups(prints: Fingerprints) -> list[Rows]:
    """Find groups of rows with the same pixels, each group sorted."""
    _, group = np.unique(prints.digests, return_inverse=True)
    return _grouped(group)


def near_groups(images: NDArray[np.uint8], prints: Fingerprints) -> list[Rows]:
    """Find groups of rows that look the same without being identical; of identical ones only the first is compared.

    Rows are neighbours if their hashes are at most 8 bits apart and their 8×8 thumbnails correlate by 0.98. Candidates
    are close to one another in one of several sortings of the hashes by randomly permuted bits (Charikar 2002): the
    time grows with N log N, and a few pairs may be missed.
    """
    _, first = np.unique(prints.digests, return_index=True)
    rows = np.sort(first[~prints.constant[first]])
    pairs = rows[_close_hashes(prints.hashes[rows])]
    used, place = np.unique(pairs, return_inverse=True)
    thumbnails = _thumbnails(images, used)[place.reshape(pairs.shape)]
    alike = np.einsum("nd,nd->n", thumbnails[:, 0], thumbnails[:, 1]) >= _LEAST_CORRELATION
    left, right = pairs[alike].T
    links = coo_array((np.ones(len(left), np.bool_), (left, right)), shape=(len(images), len(images)))
    _, group = connected_components(links, directed=False)
    return _grouped(group)


def _close_hashes(hashes: NDArray[np.uint64]) -> Rows:
    """Pairs of positions (P, 2) of hashes that differ in few bits."""
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    order_of_bits = np.random.default_rng(0)
    found = []
    for _ in range(_ORDERS):
        order = np.argsort(_packed(bits[:, order_of_bits.permutation(64)]), kind="stable")
        for step in range(1, _NEIGHBOURS + 1):
            left, right = order[:-step], order[step:]
            close = np.bitwise_count(hashes[left] ^ hashes[right]) <= _MOST_BITS_APART
            found.append(np.sort(np.stack([left[close], right[close]], axis=1), axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _thumbnails(images: NDArray[np.uint8], rows: Rows) -> NDArray[np.float32]:
    """8×8 colour thumbnails of some rows as unit vectors around their mean, float32 (R, 192)."""
    shrink = _averaging(images.shape[1], _HASH_SIDE)
    vectors = np.empty((len(rows), _HASH_SIDE * _HASH_SIDE * 3), np.float32)
    for place, row in enumerate(rows):
        small = np.tensordot(shrink, images[row].astype(np.float32), axes=1)
        vectors[place] = (shrink @ small).ravel()
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
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


def _grouped(group: NDArray[np.int64]) -> list[Rows]:
    """The rows of each group of two or more, in the order of their first rows."""
    order = np.argsort(group, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(group))[:-1])
    return sorted((rows for rows in members if len(rows) > 1), key=lambda rows: int(rows[0]))
