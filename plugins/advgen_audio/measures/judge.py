"""The feature network of the audio metrics: a small classifier of log-mel spectrograms, trained on the train split.

Without labels the same network keeps its fixed random weights: such features still compare distributions.
Legend: N clips, M mel bands, F frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from advgen import Batch, Corpus, content_hash, keep_file, load_cached_weights
from advgen_audio.spectra.log_mel import FLOOR, NUM_MELS, log_mel

VERSION = 1
FEATURES = 64
MAX_CLIPS = 8000
NUM_STEPS = 300
BATCH_SIZE = 64
SEED = 7


class MelClassifier(nn.Module):
    """log-mel (N, M, F) -> features (N, 64) -> class logits."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, 16), (16, 32), (32, 48), (48, 64)):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        # Bands stay apart until here: averaging them away would lose the pitch.
        self.join = nn.Linear(64 * (NUM_MELS // 16) * 2, FEATURES)
        self.head = nn.Linear(FEATURES, max(1, num_classes))

    def features(self, mels: Tensor) -> Tensor:
        hidden = self.body((mels[:, None] - torch.tensor(FLOOR).log() / 2) / 3)
        pooled = torch.cat([hidden.mean(-1), hidden.amax(-1)], dim=1)
        return F.relu(self.join(pooled.flatten(1)))

    def forward(self, mels: Tensor) -> Tensor:
        return self.head(self.features(mels))


class AudioJudge:
    """Features and labels as heard by the classifier."""

    def __init__(self, network: MelClassifier, rate_hz: int, labelled: bool) -> None:
        self.network, self.rate_hz, self.labelled = network.eval().requires_grad_(False), rate_hz, labelled
        self.name = "log-mel classifier, 64 features" if labelled else "random log-mel network, 64 features"
        self.protocol = {
            "layer": f"the last hidden layer, {FEATURES} rectified numbers",
            "spectrogram": f"log-mel of {NUM_MELS} bands up to half the rate, {rate_hz} Hz, floor {FLOOR:g}; clipped at 1",
            "weights": f"sha256 {hashlib.sha256(save(network.state_dict())).hexdigest()}",
        }

    def features(self, batch: Batch) -> Tensor:
        """(N, 64) activations before the last layer."""
        return torch.cat([self.network.features(mels) for mels in self._mels(batch)])

    def classify(self, batch: Batch) -> Tensor | None:
        """(N,) int64 label, or None where the data has none."""
        return torch.cat([self.network(mels).argmax(1) for mels in self._mels(batch)]) if self.labelled else None

    def _mels(self, batch: Batch) -> list[Tensor]:
        # Judges score what a listener of the written file would hear: 16-bit files clip at 1.
        return [log_mel(part.cpu().clamp(-1, 1), self.rate_hz) for part in batch.values.split(256)]


def make_judge(corpus: Corpus, facts: Mapping[str, Any], cache: Path) -> AudioJudge:
    """Train the classifier, or load it from ``cache`` where this data had one."""
    classes = len(facts.get("classes") or ())
    rate_hz = int(facts["sample_rate_hz"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = MelClassifier(classes)
        if not classes:
            return AudioJudge(network, rate_hz, False)
        names = (corpus.fingerprint, VERSION, facts["length"], rate_hz, *facts["classes"], len(corpus.splits["train"]))
        path = cache / f"audio-judge-{content_hash(str(name).encode() for name in names)[:24]}.safetensors"
        if not load_cached_weights(network, path, "the judge"):
            _train(network, corpus, rate_hz)
            keep_file(path, save(network.state_dict()), "weights of the judge")
    return AudioJudge(network, rate_hz, True)


def _train(network: MelClassifier, corpus: Corpus, rate_hz: int) -> None:
    """Fit the network to the train split in 300 steps; the learning rate falls to zero."""
    source, rng = corpus.splits["train"], torch.Generator().manual_seed(SEED)
    chosen = torch.randperm(len(source), generator=rng)[:MAX_CLIPS]
    parts = [source.batch(indices, rng) for indices in chosen.split(256)]
    mels = torch.cat([log_mel(part.values, rate_hz) for part in parts])
    labels = torch.cat([part.condition["label"] for part in parts])
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=NUM_STEPS)
    network.train()
    for _ in range(NUM_STEPS):
        indices = torch.randint(len(mels), (BATCH_SIZE,), generator=rng)
        gain = 0.5 * torch.randn(BATCH_SIZE, 1, 1, generator=rng)
        loss = F.cross_entropy(network(mels[indices] + gain), labels[indices], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
