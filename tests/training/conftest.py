"""Fixtures shared by the tests of training."""

from benches import _importable, _one_thread, bench, dataset, recipe

__all__ = ["_importable", "_one_thread", "bench", "dataset", "recipe"]
