"""How the metrics of text are measured, and which way each is better."""

from __future__ import annotations

from advgen import MetricNote

from .bleu import ORDERS

GRAMS = (1, 2, 3, 4)
_BLEU = "mean sentence BLEU-n against all held-out lines at once, smoothing method 1; an unknown word matches nothing"
_SELF_BLEU = "mean sentence BLEU-n of each sample against all others, smoothing method 1; depends on their number"
_DISTINCT = "different n-grams of words over all of them; depends on the number of samples"

NOTES: dict[str, MetricNote] = {
    **{f"bleu_{order}": MetricNote(_BLEU, "higher") for order in ORDERS},
    **{f"self_bleu_{order}": MetricNote(_SELF_BLEU, "lower") for order in ORDERS},
    **{f"distinct_{order}": MetricNote(_DISTINCT, "higher") for order in GRAMS},
    "unique_share": MetricNote("different samples over all samples", "higher"),
    "unknown_share": MetricNote(
        "unknown words over all words; they match nothing, so text with more of them than real looks varied and new"
    ),
    "novel_share": MetricNote(
        "share of samples that are no training line; of held-out lines novel_share_held_out, of training lines 0", "as held out"
    ),
    "longest_copy": MetricNote(
        "mean tokens of the longest run that stands so in some training line; of held-out lines longest_copy_held_out",
        "as held out",
    ),
    "distinct_parses": MetricNote("different sentences of the grammar; depends on the number of samples", "higher"),
}
