"""One run on disk: folder, checkpoints, metrics log."""

from advgen.runs.ending import warning_of_divergence
from advgen.runs.folder import RunFolder, by_name, describe_run, list_runs

__all__ = ["RunFolder", "by_name", "describe_run", "list_runs", "warning_of_divergence"]
