"""Sums over rows that stay where the model runs: of a batch nothing travels to the host, in the end the moments do."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from onnx import parser

from ...passes.rewrite.taps import Draw, Instrument
from ..device import Device
from ..session import Resident, Session, fetched, open_session
from .sums import Accumulator, GramProducts

Array = np.ndarray
# u: the rows of each group, (groups, rows, kernel * channels), less what lies outside of the map. Products are made in
# float32 of rows over a power of two, so that they cannot overflow, and added up in float64.
_STEP = """
<ir_version: 8, opset_import: ["" : 13]>
g (float[I, P, K, C] patches, float[I, P, K, 1] inside, double[G, M] total, double[G, M, M] lower)
  => (double[G, M] next_total, double[G, M, M] next_lower)
<int64[4] split = {0, SPLIT_K, SPLIT_G, SPLIT_C}, int64[3] flat = {SPLIT_G, -1, SPLIT_M}, float ln2 = {0.6931472},
 float two = {2.0}, float tiny = {1e-30}, int64[1] rows = {1}>
{
  masked = Mul (patches, inside)
  images = Flatten <axis = 2> (masked)
  parted = Reshape (images, split)
  first = Transpose <perm = [2, 0, 1, 3]> (parted)
  u = Reshape (first, flat)
  size = Abs (u)
  most = ReduceMax <keepdims = 0> (size)
  some = Max (most, tiny)
  log = Log (some)
  power = Div (log, ln2)
  whole = Floor (power)
  unit = Pow (two, whole)
  v = Div (u, unit)
  across = Transpose <perm = [0, 2, 1]> (v)
  product = MatMul (across, v)
  sum = ReduceSum <keepdims = 0> (v, rows)
  wide_unit = Cast <to = 11> (unit)
  wide_product = Cast <to = 11> (product)
  wide_sum = Cast <to = 11> (sum)
  once = Mul (wide_product, wide_unit)
  squared = Mul (once, wide_unit)
  added = Mul (wide_sum, wide_unit)
  next_total = Add (total, added)
  next_lower = Add (lower, squared)
}
"""


class ResidentSums:
    """The sums of u and u u^T of one tensor's patches, of each group of channels on its own."""

    def __init__(self, kernel: int, channels: int, groups: int, device: Device, threads: int | None) -> None:
        """channels: of one group."""
        self._kernel, self._channels, self._groups = kernel, channels, groups
        self._step = _step(kernel, channels, groups, device, threads)
        m = kernel * channels
        self._total: Resident = self._step.placed(np.zeros((groups, m)))
        self._lower: Resident = self._step.placed(np.zeros((groups, m, m)))
        self._rows = 0

    def add(self, patches: Resident, inside: Array) -> None:
        """Count patches (images, positions, kernel, groups * channels) float32; inside: (..., 1), 0 for padding."""
        feeds = {"patches": patches, "inside": inside, "total": self._total, "lower": self._lower}
        found = self._step.run_resident(feeds)
        self._total, self._lower = found["next_total"], found["next_lower"]
        self._rows += inside.shape[0] * inside.shape[1]

    def accumulators(self, products: GramProducts) -> list[Accumulator]:
        """What was summed, on the host, of each group. Frees what it held."""
        totals, lowers = fetched(self._total), fetched(self._lower)
        self._total = self._lower = None
        return [
            Accumulator(products, self._kernel, self._channels, lowers.nbytes).filled(self._rows, total, lower)
            for total, lower in zip(totals, lowers, strict=True)
        ]


class ResidentTaps:
    """The sums of all taps of a network; those that are too wide for a second moment keep rows on the host instead."""

    def __init__(self, instruments: Instrument, limit: int, device: Device, threads: int | None) -> None:
        self._instruments, self._limit = instruments, limit
        self._where = {"device": device, "threads": threads}
        self._products = GramProducts(device, threads)
        self._sums: dict[int, ResidentSums] = {}
        self._wide: dict[int, list[Accumulator]] = {}

    def add(self, values: Mapping[str, Resident], draw: Draw) -> None:
        """Count a batch: what the instruments yield, and what was drawn for it."""
        for number, (name, tap) in enumerate(zip(self._instruments.rows, self._instruments.taps, strict=True)):
            patches = values[name]
            images, positions, kernel, width = patches.shape()
            outside, channels = draw.outside[number], width // tap.groups
            if 8 * (kernel * channels) ** 2 * tap.groups > self._limit:
                self._keep(number, fetched(patches), outside, tap.groups)
                continue
            if number not in self._sums:
                self._sums[number] = ResidentSums(kernel, channels, tap.groups, **self._where)
            inside = np.ones(images * positions * kernel, np.float32)
            inside[outside] = 0
            self._sums[number].add(patches, inside.reshape(images, positions, kernel, 1))

    def _keep(self, number: int, patches: Array, outside: Array, groups: int) -> None:
        images, positions, kernel, width = patches.shape
        patches.reshape(-1, width)[outside] = 0
        if number not in self._wide:
            of_one = (self._products, kernel, width // groups, self._limit)
            self._wide[number] = [Accumulator(*of_one) for _ in range(groups)]
        split = patches.reshape(images * positions, kernel, groups, -1)
        for group, accumulator in enumerate(self._wide[number]):
            accumulator.add(split[:, :, group].reshape(len(split), -1))

    def accumulators(self) -> list[list[Accumulator]]:
        """Tap by tap and group by group, on the host."""
        numbers = range(len(self._sums) + len(self._wide))
        return [self._wide[n] if n in self._wide else self._sums.pop(n).accumulators(self._products) for n in numbers]


@functools.lru_cache(maxsize=64)
def _step(kernel: int, channels: int, groups: int, device: Device, threads: int | None) -> Session:
    sizes = {"SPLIT_K": kernel, "SPLIT_G": groups, "SPLIT_C": channels, "SPLIT_M": kernel * channels}
    text = _STEP
    for name, value in sizes.items():
        text = text.replace(name, str(value))
    # Without TF32: the inverse of what is summed here is wanted.
    return open_session(parser.parse_model(text), device=device, optimise=False, threads=threads)
