"""The task of vocoding: its networks, costs and measures from options, whole files, and published checkpoints."""
