"""Sums of u and of u u^T over rows that come in batches, in float64 and in bounded memory."""

from __future__ import annotations

import itertools

import numpy as np
from onnx import parser

from ...passes.algebra.gram import power_of_two
from ...passes.algebra.moments import Moments
from ..device import Device
from ..processes.together import Together
from ..session import Session, open_session

Array = np.ndarray

# A^T B and column sums. ONNX Runtime's threads sleep when they wait; those of numpy's BLAS, which does half of the work
# for A^T A, spin: on two busy cores (2048, 144) took 84 ms instead of 0.7 ms.
_PRODUCT = """
<ir_version: 8, opset_import: ["" : 13]>
g (float[R, A] a, float[R, B] b, int64[1] rows) => (float[A, B] product, float[B] total) {
  product = Gemm <transA = 1> (a, b)
  total = ReduceSum <keepdims = 0> (b, rows)
}
"""
_PANEL = 256  # columns; of m columns about (m + 256) / 2m of the products are computed, the others are their mirror
_TILE = 8  # channels whose rows are reordered at once
_ROWS = 512  # at least so many at once, however narrow they are


class GramProducts:
    """u^T u and the sum of u, by ONNX Runtime on the device that runs the model."""

    def __init__(self, device: Device, threads: int | None) -> None:
        # Without TF32: the inverse of what is summed here is wanted.
        self._session: Session = open_session(
            parser.parse_model(_PRODUCT), device=device, optimise=False, threads=threads
        )

    def add(self, U: Array, lower: Array, total: Array) -> None:
        """Add U^T U to the lower half of `lower` (m, m), the sum of the rows to `total` (m,). U: (R, m) float32."""
        m, unit = U.shape[1], power_of_two(U)
        if unit != 1:
            U = U * np.float32(unit)
        edges = np.linspace(0, m, max(m // _PANEL, 1) + 1).astype(int)
        first = np.zeros(1, np.int64)
        for start, end in itertools.pairwise(edges):
            a, b = (np.ascontiguousarray(part) for part in (U[:, start:], U[:, start:end]))
            found = self._session.run({"a": a, "b": b, "rows": first})
            lower[start:, start:end] += found["product"] if unit == 1 else found["product"].astype(float) / unit / unit
            total[start:end] += found["total"] if unit == 1 else found["total"].astype(float) / unit


class Accumulator:
    """The moments of rows u (k, C) that are added a batch at a time.

    Memory: m^2 float64, m = k * C, and rows that wait until there are as many as m, so that the large sum is touched
    seldom. Where m^2 float64 are more than `limit` bytes, as many rows are kept as fit there, and no products.
    """

    def __init__(self, products: GramProducts, kernel: int, channels: int, limit: int) -> None:
        self._products, self._kernel, self._channels = products, kernel, channels
        m = kernel * channels
        self._wide = 8 * m * m > limit
        self._lower = np.zeros((0, 0) if self._wide else (m, m))
        self._total = np.zeros(m)
        self._rows = self._held = 0
        self._waiting: list[Array] = []
        self._most = max(limit // (4 * m), 1) if self._wide else max(m, _ROWS)

    def add(self, U: Array) -> None:
        """Count the rows of U, (R, k * C) float32, kernel position by kernel position."""
        self._rows += len(U)
        if self._wide:
            self._total += U.sum(0, dtype=np.float64)
            U = U[: self._most - self._held].copy()
        if len(U):
            self._waiting.append(U)
            self._held += len(U)
        if not self._wide and self._held >= self._most:
            self._flush()

    def filled(self, rows: int, total: Array, lower: Array) -> Accumulator:
        """With sums that were made elsewhere: of u (m,) and of u u^T (m, m), float64, over so many rows."""
        assert not self._wide, "second moments of this width are kept"
        self._rows, self._total, self._lower = rows, total.copy(), lower.copy()
        return self

    def join(self, group: Together) -> None:
        """Count the rows of all processes; of those that are kept, as many as are kept of one."""
        if self._wide:
            parts = group.gathered(np.concatenate(self._waiting))
            self._waiting = [np.concatenate(parts)[: self._most]]
        else:
            self._flush()
            (self._lower,) = group.total([self._lower])
        self._total, rows = group.total([self._total, np.array([self._rows])])
        self._rows = int(rows[0])

    def result(self) -> Moments:
        """The moments of all rows, channel-major. Frees what it held."""
        if self._wide:
            samples = _channel_major(np.concatenate(self._waiting), self._kernel, (1,))
            self._waiting.clear()
            return self._moments(None, samples)
        self._flush()
        lower, self._lower = self._lower, np.zeros((0, 0))
        return self._moments(_second_moment(lower, self._kernel, self._rows), None)

    def _moments(self, second: Array | None, samples: Array | None) -> Moments:
        mean = _channel_major(self._total / self._rows, self._kernel, (0,))
        return Moments(self._rows, mean, second, self._channels, self._kernel, samples)

    def _flush(self) -> None:
        if self._waiting:
            U = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
            self._waiting.clear()
            self._held = 0
            self._products.add(U, self._lower, self._total)


def _second_moment(lower: Array, kernel: int, rows: int) -> Array:
    """The whole of a symmetric sum over rows, divided by them, reordered from (k, C) to (C, k) on both axes.

    In tiles that fit a cache; works in `lower` itself.
    """
    m = len(lower)
    for start in range(0, m, _PANEL):
        end = min(start + _PANEL, m)
        block = lower[start:end, start:end]
        block[:] = np.tril(block) + np.tril(block, -1).T
        for other in range(end, m, _PANEL):
            lower[start:end, other : other + _PANEL] = lower[other : other + _PANEL, start:end].T
    if kernel == 1:
        return np.divide(lower, rows, out=lower)
    C = m // kernel
    result = np.empty((C, kernel, C, kernel))
    source = lower.reshape(kernel, C, kernel, C).transpose(1, 0, 3, 2)
    for start in range(0, C, _TILE):
        np.divide(source[start : start + _TILE], rows, out=result[start : start + _TILE])
    return result.reshape(m, m)


def _channel_major(array: Array, kernel: int, axes: tuple[int, ...]) -> Array:
    """Reorder axes of k * C entries from (k, C) to (C, k)."""
    if kernel == 1:
        return array
    for axis in axes:
        shape = array.shape
        split = array.reshape(*shape[:axis], kernel, -1, *shape[axis + 1 :])
        array = np.ascontiguousarray(split.swapaxes(axis, axis + 1)).reshape(shape)
    return array
