"""Which units are alike, and which are told apart although they are."""

from __future__ import annotations

import numpy as np
from onnx_prune.passes.channels.solve.footprints import alike, runs


def test_units_are_alike_that_have_the_same_features_as_often():
    unit = np.array([0, 1, 0, 2, 3, 1, 4, 4])
    feature = np.array([5, 7, 7, 5, 5, 5, 7, 7])  # 0: {5, 7}, 1: {7, 5}, 2 and 3: {5}, 4: {7, 7}; 5 has none
    number = alike(unit, feature, 6)
    assert number[0] == number[1]
    assert number[2] == number[3]
    assert len({number[0], number[2], number[4]}) == 3
    assert number[5] == 0


def test_runs_are_where_values_change():
    assert runs(np.array([3, 3, 1, 2, 2, 2])) == [(0, 2), (2, 3), (3, 6)]
    assert runs(np.array([7])) == [(0, 1)]


def test_halves_of_a_split_that_are_joined_again_are_told_apart(graphs):
    """Were they one group, a removal could empty one of the two branches."""
    model = graphs.parse(
        """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
        <float[8, 3, 1, 1] w1, float[2, 8, 1, 1] w2> {
          a = Conv (x, w1)
          u, v = Split <axis = 1> (a)
          z = Concat <axis = 1> (v, u)
          y = Conv (z, w2)
        }
        """
    )
    free = graphs.groups_of(model).free
    rows = [group.slices["w1", "", 0].ravel().tolist() for group in free]
    assert sorted(rows) == [[0, 1, 2, 3], [4, 5, 6, 7]]
