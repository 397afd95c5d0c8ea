"""Draco's two decoders (arXiv 1803.09877) in numpy, re-made from the paper: what its users run, beside the one in Rust."""

import numpy as np


def repetition(gradients, r):
    """The mean of the groups' majorities, found by comparing gradients of a group exactly."""
    winners = []
    for first in range(0, len(gradients), r):
        candidate, votes = first, 0
        for row in range(first, first + r):
            if votes == 0:
                candidate, votes = row, 1
            elif np.array_equal(gradients[row], gradients[candidate]):
                votes += 1
            else:
                votes -= 1
        winners.append(gradients[candidate])
    return np.mean(winners, axis=0)


class Cyclic:
    """The cyclic code of n workers of which s may lie; `width` numbers are decoded at once."""

    def __init__(self, n, s, width):
        self.n, self.s = n, s
        powers = np.outer(np.arange(n), np.arange(n))
        fourier = np.exp(-2j * np.pi * powers / n) / np.sqrt(n)
        self.left, self.right = fourier[:, : n - 2 * s], fourier[:, n - 2 * s :]
        self.roots = np.exp(2j * np.pi * np.arange(n) / n)
        self.secret = np.random.default_rng(428).normal(1.0, 1.0, width)

    def encode(self, gradients):
        """What the workers send: row j of W G."""
        n, s = self.n, self.s
        weights = np.zeros((n, n), complex)
        for batch in range(n):
            outside = [(batch + step) % n for step in range(2 * s + 1, n)]
            q = np.linalg.solve(self.left[outside, 1:], -self.left[outside, 0])
            band = [(batch + step) % n for step in range(2 * s + 1)]
            weights[band, batch] = self.left[band] @ np.concatenate(([1.0], q))
        return weights @ gradients

    def decode(self, received):
        """The sum of all gradients, and who lied."""
        n, s = self.n, self.s
        projected = received @ self.secret
        syndrome = self.right.conj().T @ projected
        quiet = 1e-9 * np.abs(projected).max()
        lied = np.zeros(n, bool)
        if np.abs(syndrome).max() > quiet:
            hankel = np.array([syndrome[i : i + s] for i in range(s)])
            locator = np.linalg.lstsq(hankel, syndrome[s:], rcond=1e-9)[0]
            values = self.roots**s - np.vander(self.roots, s, increasing=True) @ locator
            lied = np.abs(values) < 1e-6
        honest = np.flatnonzero(~lied)
        used = honest[np.arange(n - 2 * s) * len(honest) // (n - 2 * s)]
        one = np.zeros(n - 2 * s)
        one[0] = 1.0
        combination = np.linalg.solve(self.left[used].T, one)
        return (combination @ received[used]).real, np.flatnonzero(lied)
