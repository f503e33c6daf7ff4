"""The loss behind the gates: roots of its curvature where labels lack, and the heads of auxiliary classifiers."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from onnx_prune.runtime.torch.gates.auxiliary import softmax_regression
from onnx_prune.runtime.torch.gates.loss import divergence_root, squares_root


class Given:
    """Signs that are given."""

    def __init__(self, signs):
        self.signs = torch.tensor(signs, dtype=torch.float64)

    def like(self, value):
        return self.signs.reshape(value.shape)


def test_without_labels_the_signs_average_to_the_fisher_matrix():
    logits = torch.tensor([[0.3, -1.2, 2.0]], dtype=torch.float64, requires_grad=True)
    p = torch.softmax(logits.detach(), 1)[0].numpy()
    total = np.zeros((3, 3))
    for signs in itertools.product([1.0, -1.0], repeat=3):
        (row,) = torch.autograd.grad(divergence_root(logits, Given(signs)), logits)
        total += row.T.numpy() @ row.numpy() / 8
    np.testing.assert_allclose(total, np.diag(p) - np.outer(p, p), atol=1e-15)


def test_other_outputs_count_their_relative_squares():
    value = torch.tensor([[[1.0, -2.0]], [[2.0, 4.0]]], dtype=torch.float64, requires_grad=True)
    total = np.zeros((2, 2))
    for signs in itertools.product([1.0, -1.0], repeat=4):
        (rows,) = torch.autograd.grad(squares_root(value, 2, Given(signs)), value)
        total += rows[0].T.numpy() @ rows[0].numpy() / 16
    np.testing.assert_allclose(total, np.eye(2) / 12.5, atol=1e-15)


def test_softmax_regression_finds_where_the_loss_is_flat():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 4)) * [1, 10, 0.1, 0] + 3
    y = (X[:, 1] + rng.standard_normal(200) > 3).astype(int) + (X[:, 0] > 3.5)
    W, b = softmax_regression(X, y, 3)
    rows = X @ W.T + b
    p = np.exp(rows - rows.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    assert (rows.argmax(1) == y).mean() > 0.8
    np.testing.assert_allclose((p - np.eye(3)[y]).mean(0), 0, atol=1e-4)
