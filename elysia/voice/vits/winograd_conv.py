"""One-dimensional convolutions with a third of the multiplications, exact up to rounding.

The Toom-Cook algorithm in Winograd's form: m outputs of a filter of r taps take m + r - 1 products of
linear forms in place of m * r. The forms are evaluated at 0, infinity, ±1, ±2, ±1/2, and at points of
the unit circle (three real products per conjugate pair), which keeps float32 as exact as the plain sum:
errors of 3e-7 to 6e-7 of the signal. Larger real points would lose digits.
Sources: S. Winograd, Arithmetic Complexity of Computations (1980); A. Toom (1963).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

Matrix = NDArray[np.float64]
REAL_POINTS = (0.0, np.inf, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)


def winograd_matrices(outputs: int, taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """Matrices (out, filter, into) with y = out @ ((filter @ h) * (into @ x)), y_q = sum_j h_j x_{q+j}.

    Shapes (outputs, P), (P, taps), (P, outputs + taps - 1); that sum must be 8 or more, and even.
    """
    length = outputs + taps - 1
    pairs = (length - len(REAL_POINTS)) // 2
    points = [*REAL_POINTS, *(np.exp(1j * np.pi * (i + 1) / (pairs + 1)) for i in range(pairs))]
    # Transposed, a filter is a product of polynomials: evaluate both at the points, then interpolate.
    values = np.concatenate([_evaluation_rows(point, length)[:2] for point in points])
    products = np.zeros((length, len(REAL_POINTS) + 3 * pairs))
    products[: len(REAL_POINTS), : len(REAL_POINTS)] = np.eye(len(REAL_POINTS))
    for i in range(pairs):  # (u + iv)(s + it) from us, vt and (u + v)(s + t)
        row, column = len(REAL_POINTS) + 2 * i, len(REAL_POINTS) + 3 * i
        products[row : row + 2, column : column + 3] = [[1, -1, 0], [-1, -1, 1]]
    into = np.linalg.solve(values, products).T
    scale = 2.0 ** np.round(np.log2(np.abs(into).sum(axis=1, keepdims=True)))
    out = np.concatenate([_evaluation_rows(point, outputs) for point in points]).T
    filters = np.concatenate([_evaluation_rows(point, taps) for point in points])
    return out, filters * scale, into / scale


def _evaluation_rows(point: complex, count: int) -> Matrix:
    """The rows that evaluate a polynomial of `count` coefficients at a point: 1, or 3 for a pair."""
    if point == np.inf:
        return np.eye(count)[-1:]
    powers = np.asarray(point) ** np.arange(count)
    if not np.iscomplexobj(powers):
        return powers[None].astype(np.float64)
    return np.stack([powers.real, powers.imag, powers.real + powers.imag])


class WinogradConv1d(nn.Module):
    """A length-preserving Conv1d over a signal that is split into `phases`: (phases, C, A) -> the same.

    Sample t of the signal is [t % phases, :, t // phases]. Kernel size and dilation must be odd, and
    `phases` a power of two.
    """

    into: Tensor
    out: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv1d, phases: int) -> None:
        super().__init__()
        channels, _, taps = conv.weight.shape
        step = conv.dilation[0]
        out, filters, into = winograd_matrices(phases, taps)
        # Outputs are computed `step` apart; row p of the result must hold those of phase p.
        order = [pow(step, -1, phases) * phase % phases for phase in range(phases)]
        self.late = [step * place // phases for place in order]
        self.read = [divmod(step * (i - taps // 2), phases) for i in range(phases + taps - 1)]
        # Every output is a sum of products, so the bias is spread over them such that it adds up again.
        shares = torch.from_numpy(np.linalg.pinv(out) @ np.ones(phases))
        weight = torch.einsum(
            "pr,oir->poi", torch.from_numpy(filters), conv.weight.detach().double()
        )
        bias = torch.zeros(channels) if conv.bias is None else conv.bias.detach()
        self.products, self.channels = len(filters), channels
        self.register_buffer("into", torch.from_numpy(into).float())
        self.register_buffer("out", torch.from_numpy(out[order]).float())
        self.register_buffer("weight", weight.reshape(-1, channels, 1).float())
        self.register_buffer("bias", (shares[:, None] * bias.double()).reshape(-1).float())

    def forward(self, x: Tensor) -> Tensor:
        """(phases, C, A) -> (phases, C, A)."""
        late = max(self.late)
        left = late - min(columns for columns, _ in self.read)
        right = max(columns for columns, _ in self.read)
        padded = F.pad(x, (left, right))
        near = torch.cat(  # ends are counted from the right, so that the graph computes no length
            [
                padded[rows, :, left - late + columns : (columns - right) or None]
                for columns, rows in _group_reads(self.read)
            ]
        )
        forms = self.into @ near.reshape(len(self.read), -1)
        forms = forms.reshape(1, self.products * self.channels, -1)
        products = F.conv1d(forms, self.weight, self.bias, groups=self.products)
        y = self.out @ products.reshape(self.products, -1)
        y = y.reshape(len(self.late), self.channels, -1)
        if not late:
            return y
        return torch.cat(
            [y[p : p + 1, :, late - by : -by or None] for p, by in enumerate(self.late)]
        )


def _group_reads(reads: list[tuple[int, int]]) -> list[tuple[int, slice]]:
    """Reads of (column, row) as few slices: rows of one column that are the same distance apart."""
    runs: list[tuple[int, slice]] = []
    start = 0
    while start < len(reads):
        column, row = reads[start]
        step = max(1, reads[start + 1][1] - row) if start + 1 < len(reads) else 1
        end = start + 1
        while end < len(reads) and reads[end] == (column, row + (end - start) * step):
            end += 1
        runs.append((column, slice(row, row + (end - start - 1) * step + 1, step)))
        start = end
    return runs


def to_phases(x: Tensor, phases: int) -> Tensor:
    """(1, C, T) -> (phases, C, T / phases)."""
    return x.reshape(x.shape[1], -1, phases).permute(2, 0, 1)


def from_phases(x: Tensor) -> Tensor:
    """(phases, C, A) -> (1, C, phases * A)."""
    return x.permute(1, 2, 0).flatten(1)[None]


def is_supported(conv: Any, phases: int) -> bool:
    """Whether a Conv1d has a Winograd form over so many phases."""
    taps, step = conv.kernel_size[0], conv.dilation[0]
    square = conv.in_channels == conv.out_channels and conv.groups == 1
    whole = square and conv.stride[0] == 1 and conv.padding[0] == step * (taps // 2)
    return bool(phases >= 8 and taps % 2 == 1 and step % 2 == 1 and whole)
