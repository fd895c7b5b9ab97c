"""Philox4x32-10 in NumPy, word for word the generator of include/kd/core/random.hpp."""
import numpy as np

LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)


def philox4x32(counter, key):
    """Four uint32 arrays for a counter of four broadcastable arrays of words and a 64-bit key."""
    c0, c1, c2, c3 = (a.astype(np.uint64) for a in np.broadcast_arrays(*counter))
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0 = np.uint64(0xD2511F53) * c0
        p1 = np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = ((p1 >> SHIFT) ^ c1 ^ np.uint64(k0), p1 & LOW,
                          (p0 >> SHIFT) ^ c3 ^ np.uint64(k1), p0 & LOW)
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [c.astype(np.uint32) for c in (c0, c1, c2, c3)]


def words(count, key, b, c, stream):
    """Words of elements 0 .. count - 1: element i is word i % 4 of counter {i / 4, b, c, stream}."""
    blocks = philox4x32((np.arange((count + 3) // 4), b, c, stream), key)
    return np.stack(blocks, axis=1).reshape(-1)[:count]


def uniform(word):
    """float32 in [0, 1) with 24 random bits."""
    return (word >> np.uint32(8)).astype(np.float32) * np.float32(2.0 ** -24)


def symmetric(word):
    """float32 in [-1, 1); exact, no rounding."""
    return np.float32(2) * uniform(word) - np.float32(1)


assert [int(w) for w in philox4x32((0, 0, 0, 0), 0)] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
