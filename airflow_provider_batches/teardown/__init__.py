"""Tearing down many batches in one task: which batches, their results, the work itself. Knows nothing of tasks."""
