"""Fixtures that tests of stages and of their parts share: benches, datasets and recipes."""

from benches import _importable, _one_thread, bench, dataset, recipe

__all__ = ["_importable", "_one_thread", "bench", "dataset", "recipe"]
