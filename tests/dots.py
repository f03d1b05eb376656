"""A small plugin with a bit of everything. Tests break it, one line at a time."""

import torch
from torch import nn

from advgen import (
    Batch,
    Corpus,
    DataError,
    Discriminator,
    Generator,
    Loss,
    Modality,
    Penalty,
    PluginConfig,
    PluginSpec,
    Sample,
    Verdict,
    hookimpl,
)


class DotsConfig(PluginConfig):
    width: int = 8


class DotsSampling(PluginConfig):
    size: float = 1.0


class DotsGenerator(Generator):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, noise, condition, *, mode="values", temperature=1.0):
        return Sample(self.layers(noise))


class DotsDiscriminator(Discriminator):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 1))

    def embed(self, sample):
        return sample.values

    def forward(self, seen, condition, mask=None):
        return Verdict.of(self.layers(seen).squeeze(1))


class DotsSource:
    def __init__(self, points):
        self.points = points

    def __len__(self):
        return len(self.points)

    def batch(self, indices, generator):
        return Batch(self.points[indices])


class DotsJudge:
    name = "coordinates"

    def features(self, batch):
        return batch.values

    def classify(self, batch):
        return None


class DotsModality(Modality[DotsConfig]):
    one_file = True

    @classmethod
    def read(cls, config, request):
        if request.path is not None:
            raise DataError(f"{request.path}: dots come from nowhere but here; leave --data out")
        points = torch.randn(3, 40, 2, generator=torch.Generator().manual_seed(0))
        splits = {name: DotsSource(points[index]) for index, name in enumerate(("train", "validation", "test"))}
        return Corpus({"scale": 1.0}, splits, "dots")

    def generator(self):
        return DotsGenerator(self.config.width)

    def discriminator(self):
        return DotsDiscriminator(self.config.width)

    def noise(self, num_samples, generator, *, mode="values"):
        return torch.randn(num_samples, 3, generator=generator)

    def prepare(self, batch):
        return Batch(batch.values * 1.0)

    def postprocess(self, sample, condition):
        return Batch(sample.values)

    def condition(self, num_samples, generator, *, label=None):
        return {}

    def use_sampling(self, options, num_samples):
        self.size = options.size

    def auxiliary(self, real, fake):
        return {"size": (real.values.square().mean() - fake.values.square().mean()).abs()}

    def verdict_auxiliary(self, real, fake):
        return {"level": fake.heads[0].scores.mean()}

    def judge(self, corpus, cache):
        return DotsJudge()

    def metrics(self, generated, held_out):
        return {"size": float(generated.values.square().mean())}

    def write(self, batch, folder, *, start=0):
        path = folder / "dots.txt"
        with path.open("a" if start else "w") as file:
            file.writelines(f"{x} {y}\n" for x, y in batch.values.tolist())
        return [path]

    def overview(self, batch, stem):
        path = stem.with_name(stem.name + ".txt")
        path.write_text(str(len(batch)))
        return [path]


def soft_discriminator(*, real, fake):
    return nn.functional.softplus(1 - real) + nn.functional.softplus(1 + fake)


def soft_generator(*, real, fake):
    return -fake


def flat(*, judge_real, judge_fake, real, fake, weight, noise):
    return weight * judge_real(real).heads[0].scores.square()


def distance(*, generated, real):
    return float((generated.mean(0) - real.mean(0)).norm())


class DotsLogger:
    def __init__(self, folder):
        self.folder = folder

    def log(self, step, row):
        pass

    def close(self):
        pass


SIDES = (lambda real: nn.functional.softplus(1 - real), lambda fake: nn.functional.softplus(1 + fake))
SOFT = Loss("soft", "", soft_discriminator, soft_generator, False, False, 2.6, "", SIDES)
FLAT = Penalty("flat", "", flat, "real", "")


@hookimpl
def advgen_register():
    return PluginSpec(
        name="dots",
        summary="Dots.",
        config="__plugin__:DotsConfig",
        modality="__plugin__:DotsModality",
        sampling="__plugin__:DotsSampling",
        losses={"soft": "__plugin__:SOFT"},
        penalties={"flat": "__plugin__:FLAT"},
        metrics={"distance": "__plugin__:distance"},
        loggers={"dots": "__plugin__:DotsLogger"},
        presets={
            "default": {
                "loss": "soft",
                "penalties": {"flat": {"weight": 0.1}, "r1": {"weight": 0.1}},
                "auxiliary": {"size": 0.1, "level": 0.1},
                "train": {"steps": 2, "batch_size": 8},
            }
        },
    )
