"""The run configuration. One model, no torch."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """Unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DataConfig(Section):
    """Where data comes from and how it is split."""

    path: str | None = Field(
        None, description="File, folder, archive, named set or address; empty means the plugin's embedded corpus."
    )
    max_bad: int = Field(10, ge=0, description="Unreadable files to skip before the run is refused.")
    validation_share: float = Field(0.1, gt=0, lt=0.5)
    test_share: float = Field(0.1, gt=0, lt=0.5)
    device_share: float = Field(
        0.25, ge=0, le=1, description="Share of a GPU's free memory that training data may take to be kept there; 0: none."
    )


class ClipConfig(Section):
    """Gradient clipping of one player."""

    kind: Literal["none", "norm", "value", "quantile"] = "none"
    limit: float = Field(1.0, gt=0, description="Norm or value; for quantile, the quantile of past norms in (0, 1).")

    @model_validator(mode="after")
    def _quantile_below_one(self) -> ClipConfig:
        if self.kind == "quantile" and self.limit >= 1:
            raise ValueError(f"limit {self.limit} is not a quantile; expected a number between 0 and 1")
        return self


class PlayerConfig(Section):
    """Optimizer of one player."""

    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    learning_rate: float = Field(2e-4, gt=0)
    betas: tuple[float, float] = (0.0, 0.99)
    weight_decay: float = Field(0.0, ge=0)
    steps: int = Field(1, ge=1, description="Updates per training step.")
    clip: ClipConfig = ClipConfig()


class DiscriminatorConfig(PlayerConfig):
    """Optimizer of D, and what it learns besides telling real from generated."""

    mismatch: float = Field(
        0.0, ge=0, description="Weight of ranking each real sample under its own condition above itself under another's."
    )
    one_pass: bool = Field(
        True, description="Judge real and generated samples as one batch; false: apart, which spares a CPU's cache."
    )


class PenaltyConfig(Section):
    """One penalty: on the discriminator, or on the generator for path_length."""

    weight: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        1.0, description="gamma of R1/R2 (used as gamma/2), lambda of the others; auto: by the plugin's rule."
    )
    interval: int = Field(1, ge=1, description="Every k-th update, with k times the weight.")
    share: float = Field(1.0, gt=0, le=1, description="Share of the batch that it is measured on.")
    own_step: bool = Field(
        False,
        description="An update of its own after the loss's, Adam's rate and betas corrected for both, as in StyleGAN2.",
    )

    @property
    def amount(self) -> float:
        """The weight as a number; ``auto`` has been replaced before the first step."""
        return 1.0 if self.weight == "auto" else float(self.weight)


class EstimatorConfig(Section):
    """How the generator's gradient is obtained."""

    name: Literal["pathwise", "straight_through", "score_function", "ppo", "expectation"] = "pathwise"
    temperature: float = Field(1.0, gt=0)
    rewards: Literal["dense", "terminal", "rollout", "importance"] = Field(
        "dense",
        description="What a token is credited with: later scores, the sample's, that of completions, or density ratios.",
    )
    discount: float = Field(0.95, ge=0, le=1, description="Of later rewards, for dense and terminal.")
    baseline_decay: float = Field(0.95, ge=0, lt=1)
    entropy_weight: float = Field(0.0, ge=0)
    rollouts: int = Field(16, ge=1, le=1024, description="Completions of each prefix, for rewards=rollout.")
    rollout_rows: int = Field(
        8192, ge=1, description="Completions written at once, on a CPU at most 512: bounds memory, changes no result."
    )
    epochs: int = Field(4, ge=1, le=64, description="ppo: updates over the same samples.")
    clip: float = Field(0.2, gt=0, description="ppo: how far a probability may move, as a share; inf: anywhere.")
    normalise: bool = Field(True, description="ppo: advantages are divided by their root mean square over the global batch.")
    reference_weight: float = Field(
        0.0, ge=0, description="ppo: weight of the divergence (nats a token) from G as the adversarial phase found it."
    )
    entropy_floor: float = Field(
        0.0, ge=0, description="ppo: entropy is rewarded only while its mean is below so many nats a token; 0: always."
    )
    real_share: float = Field(0.0, ge=0, lt=1, description="ppo: share of the samples that real ones take the place of.")
    real_reward: float = Field(2.0, ge=0, description="ppo: the advantage of every token of those.")

    @model_validator(mode="after")
    def _what_would_not_be_used(self) -> EstimatorConfig:
        if self.entropy_floor > 0 and self.entropy_weight == 0:
            raise ValueError(f"entropy_floor={self.entropy_floor:g} has no weight; give entropy_weight, such as 0.01")
        if self.name != "ppo":
            unused = [name for name in ("reference_weight", "entropy_floor", "real_share") if getattr(self, name) > 0]
            if unused:
                raise ValueError(f"{unused[0]} belongs to name=ppo, not to {self.name}; leave it out")
        return self


class AverageConfig(Section):
    """Exponential moving average of the generator's parameters; what sampling uses."""

    enabled: bool = True
    half_life_steps: float = Field(500.0, gt=0)
    ramp_up: float = Field(0.05, ge=0, description="Half-life is at most this share of the steps so far; 0: no ramp.")


class PhaseConfig(Section):
    """A stretch of the plan. Likelihood trains G alone on data, critic D alone against G as it is; adversarial trains both."""

    kind: Literal["likelihood", "critic", "adversarial"] = "adversarial"
    share: float = Field(1.0, gt=0, le=1)


class ScheduleConfig(Section):
    """A multiplier over the plan's progress for any scalar, such as ``generator.learning_rate``; ``burn_in`` drives several."""

    kind: Literal["constant", "linear", "cosine", "exponential"] = "cosine"
    start: float = 1.0
    end: float = 0.0
    since: float = Field(0.0, ge=0, lt=1, description="Share of the plan before which the start value holds.")
    until: float = Field(
        1.0, gt=0, le=1, description="Share of the plan after which the end value holds; equal to since: one step."
    )

    @model_validator(mode="after")
    def _can_be_followed(self) -> ScheduleConfig:
        if self.since > self.until:
            raise ValueError(f"since={self.since:g} comes after until={self.until:g}; expected at most until")
        if self.kind == "exponential" and not (self.start > 0 and self.end > 0):
            raise ValueError(
                f"kind=exponential goes by equal factors, so start and end lie above 0; got {self.start:g} and {self.end:g}; "
                "give such as end=0.1, or take kind=linear"
            )
        return self


class StopConfig(Section):
    """Stop before the plan's end."""

    samples: int | None = Field(None, ge=1, description="Real samples seen by the discriminator.")
    metric: str | None = Field(None, description="A validation metric, such as frechet_distance.")
    target: float | None = None
    better: Literal["lower", "higher"] | None = Field(
        None, description="Which way the metric improves; empty: as gen evaluate says, lower where it does not."
    )


class TrainConfig(Section):
    """The plan and its housekeeping."""

    steps: int | None = Field(None, ge=1)
    minutes: float | None = Field(None, gt=0)
    batch_size: int = Field(64, ge=1, description="Global batch, over all ranks and accumulation.")
    accumulate: int = Field(1, ge=1)
    seed: int = Field(0, ge=0)
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    channels_last: bool = Field(False, description="Keep weights of 2-D convolutions with their channels last.")
    deterministic: bool = Field(False, description="On a GPU: algorithms that repeat to the bit, where there are any; slower.")
    cuda_graphs: bool = Field(True, description="On one GPU: record each kind of update once and replay it.")
    log_every: int = Field(50, ge=1)
    sample_every: int = Field(500, ge=1)
    checkpoint_every: int = Field(500, ge=1)
    evaluate_every: int | None = Field(None, ge=1, description="Validation metrics every so many steps; needed for best.")
    keep: int = Field(2, ge=1)


class RunConfig(Section):
    """Everything that a run is made of."""

    plugin: str
    options: dict[str, Any] = Field(default_factory=dict, description="The plugin's own options.")
    data: DataConfig = DataConfig()
    loss: str = "relativistic"
    penalties: dict[str, PenaltyConfig] = Field(default_factory=dict)
    estimator: EstimatorConfig = EstimatorConfig()
    auxiliary: dict[str, float] = Field(
        default_factory=dict, description="Weights of the modality's extra terms; likelihood is the anchor."
    )
    balance: dict[str, float] = Field(
        default_factory=dict,
        description="Shares of G's costs, loss and auxiliary ones, by the gradient that each sends to the sample; empty: none.",
    )
    generator: PlayerConfig = PlayerConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    average: AverageConfig = AverageConfig()
    phases: tuple[PhaseConfig, ...] = (PhaseConfig(),)
    schedules: dict[str, ScheduleConfig] = Field(default_factory=dict)
    stop: StopConfig = StopConfig()
    train: TrainConfig = TrainConfig()

    @field_validator("balance")
    @classmethod
    def _shares(cls, shares: dict[str, float]) -> dict[str, float]:
        wrong = [name for name, share in shares.items() if not 0 < share < math.inf]
        if wrong:
            raise ValueError(
                f"the share {shares[wrong[0]]} of {wrong[0]} is not above 0; take it out with balance.{wrong[0]}=false"
            )
        if shares and "loss" not in shares:
            raise ValueError("expected a share of loss, the adversarial cost, beside those of auxiliary costs")
        if "likelihood" in shares:
            raise ValueError("likelihood does not pass through the sample; give it a weight, auxiliary.likelihood")
        return shares

    @model_validator(mode="after")
    def _balance_has_a_gradient(self) -> RunConfig:
        if self.balance and self.estimator.name in ("score_function", "ppo", "expectation"):
            raise ValueError(
                f"balance needs a gradient at the sample, which estimator.name={self.estimator.name} has not; "
                "take straight_through, or leave balance out"
            )
        return self
