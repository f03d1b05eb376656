"""The feature network of evaluations: a small classifier, or an autoencoder where there are no classes.

Trained on the train split alone, from its own fixed seed, and cached; it never enters a loss. Legend: N images, F features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from advgen import Batch, Corpus, content_hash, keep_file, load_cached_weights
from advgen_image.networks import ImageShape

NUM_FEATURES = 64
STEPS = 600
BATCH_SIZE = 64
LEARNING_RATE = 2e-3
SEED = 7
VERSION = "1"
WORKING_SIDE = 32
CHUNK = 256


class JudgeNetwork(nn.Module):
    """images (N, C, H, W) in [-1, 1] -> features (N, 64); then class logits, or a small copy of the image."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(shape.channels, 24, 3, 2, 1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, 2, 1),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.Conv2d(48, 96, 3, 2, 1),
            nn.BatchNorm2d(96),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(96 * (WORKING_SIDE // 8) ** 2, NUM_FEATURES),
        )
        out = shape.num_classes or shape.channels * (WORKING_SIDE // 2) ** 2
        hidden = NUM_FEATURES if shape.num_classes else 4 * NUM_FEATURES
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(NUM_FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, out))
        self.classifies = shape.num_classes > 0

    def features(self, images: Tensor) -> Tensor:
        """Activations before the head; images of any size are resized to 32x32 first."""
        return self.trunk(_resize(images, WORKING_SIDE))

    def cost(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Cross-entropy with the labels, or squared error against the image at half the working size."""
        out = self.head(self.features(images))
        if self.classifies and labels is not None:
            return F.cross_entropy(out, labels)
        return F.mse_loss(out, _resize(images, WORKING_SIDE // 2).flatten(1))


def _resize(images: Tensor, side: int) -> Tensor:
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)


class ImageJudge:
    """A trained feature network behind the core's ``Judge`` protocol."""

    def __init__(self, network: JudgeNetwork) -> None:
        self.network = network.eval().requires_grad_(False)
        self.name = "own-cnn-classifier" if network.classifies else "own-cnn-autoencoder"
        weights = save(network.state_dict())
        self.identity = content_hash([VERSION.encode(), weights])
        self.protocol = {
            "layer": f"the trunk's last linear layer, {NUM_FEATURES} numbers before the rectifier",
            "resizer": f"bilinear to {WORKING_SIDE}x{WORKING_SIDE} with smoothing, of other sizes alone; values in [-1, 1]",
            "weights": f"sha256 {hashlib.sha256(weights).hexdigest()}",
        }

    @torch.no_grad()
    def features(self, batch: Batch) -> Tensor:
        """(N, 64) features of a prepared batch."""
        return torch.cat([self.network.features(part.float()) for part in self._parts(batch)])

    @torch.no_grad()
    def features_and_logits(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """(N, 64) features, and (N, K) logits where the data has classes."""
        features = self.features(batch)
        return features, self.network.head(features) if self.network.classifies else None

    @torch.no_grad()
    def classify(self, batch: Batch) -> Tensor | None:
        """(N,) int64 predicted label; None where the data has no classes."""
        if not self.network.classifies:
            return None
        parts = [self.network.head(self.network.features(part.float())).argmax(1) for part in self._parts(batch)]
        return torch.cat(parts)

    def _parts(self, batch: Batch) -> tuple[Tensor, ...]:
        self.network.to(batch.values.device)
        return batch.values.split(CHUNK)


def train_judge(corpus: Corpus, shape: ImageShape, prepare: Callable[[Batch], Batch], cache: Path) -> ImageJudge:
    """Load the judge of this data from ``cache``, or train it: the same data gives the same judge."""
    key = content_hash([VERSION.encode(), corpus.fingerprint.encode(), repr((shape, STEPS)).encode(), _rows(corpus)])
    file = cache / key / "judge.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = JudgeNetwork(shape)
        if not load_cached_weights(network, file, "the judge"):
            _fit(network, corpus, prepare)
            keep_file(file, save(network.state_dict()), "weights of the judge")
    return ImageJudge(network)


def _rows(corpus: Corpus) -> bytes:
    """The split sizes, as the shares may differ over the same files."""
    return repr(sorted((name, len(source)) for name, source in corpus.splits.items() if name != "reference")).encode()


def _fit(network: JudgeNetwork, corpus: Corpus, prepare: Callable[[Batch], Batch]) -> None:
    # Without the mirrors and windows of training, so that judges of the same data are the same.
    source, order = corpus.splits.get("reference", corpus.splits["train"]), torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    with torch.enable_grad():
        for _ in range(STEPS):
            batch = prepare(source.batch(torch.randint(len(source), (BATCH_SIZE,), generator=order), order))
            optimizer.zero_grad()
            network.cost(batch.values, batch.condition.get("label")).backward()
            optimizer.step()
            schedule.step()
