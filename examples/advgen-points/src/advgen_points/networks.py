"""Two plain perceptrons. B batch, Z noise size; a point has two coordinates."""

from collections.abc import Mapping
from itertools import pairwise

from torch import Tensor, nn

from advgen import Discriminator, Generator, Mode, Sample, Verdict


def perceptron(num_inputs: int, width: int, depth: int, num_outputs: int) -> nn.Sequential:
    """(B, num_inputs) -> (B, num_outputs) through ``depth`` hidden layers."""
    # ReLU: LeakyReLU(0.2) left far more points between the modes after as many steps.
    sizes = [num_inputs, *[width] * depth]
    hidden = [layer for size_in, size_out in pairwise(sizes) for layer in (nn.Linear(size_in, size_out), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, num_outputs))


class PointsGenerator(Generator):
    """noise (B, Z) -> points (B, 2), unbounded; the data lie in [-1, 1]."""

    def __init__(self, noise_size: int, width: int, depth: int) -> None:
        super().__init__()
        self.layers = perceptron(noise_size, width, depth, 2)

    def forward(
        self, noise: Tensor, condition: Mapping[str, Tensor], *, mode: Mode = "values", temperature: float = 1.0
    ) -> Sample:
        """One point for each row of noise; there is nothing to condition on."""
        return Sample(values=self.layers(noise))


class PointsDiscriminator(Discriminator):
    """points (B, 2) -> one logit a point (B,)."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.layers = perceptron(2, width, depth, 1)

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        """Higher means more like the data. Linear layers and ReLU allow double backward."""
        return Verdict.of(self.layers(seen).squeeze(1))
