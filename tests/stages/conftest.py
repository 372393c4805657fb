"""The benches that tests of stages and of their parts share."""

from benches import _importable, _one_thread, bench, dataset, recipe

__all__ = ["_importable", "_one_thread", "bench", "dataset", "recipe"]
