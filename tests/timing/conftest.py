"""Fixtures shared by the tests of timing."""

from benches import _importable, _one_thread, bench, dataset, recipe

__all__ = ["_importable", "_one_thread", "bench", "dataset", "recipe"]
