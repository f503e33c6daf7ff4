"""Moments: what calibration leaves of the activations that consumers read.

A consumer computes y = W u + b, where u is the im2col patch of its input: C channels times k kernel positions,
channel-major. Everything data-driven is a function of W and of the first two moments of u: see docs/methods.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..graph.files import publish
from .gram import covariance

Array = np.ndarray
FORMAT, VERSION = "onnx-prune moments", 1


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """First and second moments of a consumer's patches u, over images and sampled positions; m = channels * kernel.

    u is channel-major: entry c * kernel + t is channel c at kernel position t.

    rows: how many patches
    mean: mu = E[u], (m,) float64
    second: A = E[u u^T], (m, m) float64, symmetric; None where it would be too large
    samples: patches themselves where `second` is None, (at most rows, m) float32
    """

    rows: int
    mean: Array
    second: Array | None
    channels: int
    kernel: int
    samples: Array | None = None

    @property
    def covariance(self) -> Array:
        """Sigma = A - mu mu^T, (m, m) float64; that of the samples where only they are kept."""
        if self.second is not None:
            return covariance(self.second, self.mean)
        U = self._rows()
        U -= U.mean(0)
        return U.T @ U / len(U)

    def uncentred(self) -> tuple[Array, Array]:
        """(A, mu), (m, m) and (m,) float64; both of the samples where only they are kept."""
        if self.second is not None:
            return self.second, self.mean
        U = self._rows()
        return U.T @ U / len(U), U.mean(0)

    def _rows(self) -> Array:
        assert self.samples is not None, "moments without a second moment keep samples"
        return self.samples.astype(np.float64)

    def __repr__(self) -> str:
        return f"Moments(rows={self.rows}, channels={self.channels}, kernel={self.kernel})"


def _pooled(found: Sequence[Moments]) -> Moments:
    """Moments of all rows together."""
    first = found[0]
    if len(found) == 1:
        return first
    rows = sum(m.rows for m in found)
    mean = sum((m.mean * (m.rows / rows) for m in found), np.zeros_like(first.mean))
    second, samples = None, None
    if all(m.second is not None for m in found):
        second = sum((m.second * (m.rows / rows) for m in found), np.zeros(()))  # type: ignore[operator]  # not None
    elif all(m.samples is not None for m in found):
        samples = np.concatenate([m.samples for m in found])  # type: ignore[misc]  # not None
    return Moments(rows, mean, second, first.channels, first.kernel, samples)


@dataclass(frozen=True, slots=True, eq=False)
class ActivationStatistics:
    """Of each channel of a tensor, over all images and positions, (C,) float64: share of zeros, mean, variance."""

    zeros: Array
    mean: Array
    variance: Array


@dataclass(frozen=True, slots=True, eq=False)
class MomentsSet:
    """The moments of a model's consumers by the name of the node's first output, and statistics of tensors by name.

    A consumer has one `Moments` for each group of its convolution: `set[name]` where there is one, else `set.groups`.
    graph_sha256: of the graph that they were measured on.
    """

    graph_sha256: str
    consumers: Mapping[str, tuple[Moments, ...]]
    activations: Mapping[str, ActivationStatistics] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"MomentsSet({len(self.consumers)} consumers, {len(self.activations)} tensors with statistics)"

    def __contains__(self, consumer: str) -> bool:
        return consumer in self.consumers

    def __iter__(self) -> Iterator[str]:
        return iter(self.consumers)

    def __len__(self) -> int:
        return len(self.consumers)

    def __getitem__(self, consumer: str) -> Moments:
        """The moments of a consumer that is no group convolution."""
        (moments,) = self.consumers[consumer]
        return moments

    def pooled(self, consumers: Sequence[str]) -> Moments | None:
        """The moments of all that these consumers read, which share a weight; None where one is not known."""
        if not all(name in self.consumers and len(self.consumers[name]) == 1 for name in consumers):
            return None
        return _pooled([self[name] for name in consumers])

    def groups(self, consumer: str) -> tuple[Moments, ...]:
        """The moments of each group of a consumer's convolution, one where it has none."""
        return self.consumers[consumer]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write an .npz that appears whole or not at all. Raises UsageError where it cannot be written."""
        arrays, header = self._pack()
        arrays["header"] = np.array(json.dumps(header))

        def write(file: Path) -> None:
            with file.open("wb") as handle:  # a name would get the ending .npz
                np.savez(handle, allow_pickle=False, **arrays)

        return publish(Path(path), write)

    def _pack(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Arrays by key, and what says which is which; moments that consumers share are stored once."""
        arrays: dict[str, Array] = {}
        keys: dict[int, int] = {}

        def put(key: str, value: Any) -> dict[str, Any]:  # noqa: ANN401 - any of the dataclasses here
            fields = {n: getattr(value, n) for n in value.__slots__}
            arrays.update({f"{key}.{n}": v for n, v in fields.items() if isinstance(v, np.ndarray)})
            return {n: v for n, v in fields.items() if isinstance(v, int)}

        entries: list[dict[str, Any]] = []
        for parts in self.consumers.values():
            for part in parts:
                if id(part) not in keys:
                    keys[id(part)] = len(entries)
                    entries.append(put(f"moments.{len(entries)}", part))
        for index, statistics in enumerate(self.activations.values()):
            put(f"activations.{index}", statistics)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "graph_sha256": self.graph_sha256,
            "consumers": {name: [keys[id(p)] for p in parts] for name, parts in self.consumers.items()},
            "moments": entries,
            "activations": list(self.activations),
        }
        return arrays, header
