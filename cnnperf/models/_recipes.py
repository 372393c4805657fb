"""Settings shared by the networks' training recipes."""

from __future__ import annotations

from contextlib import suppress

from cnnperf import registry
from cnnperf.errors import UsageError


def mirrored(dataset: str) -> bool:
    """Return whether images may be mirrored, as declared by `MIRRORED` in the dataset's file or module; default: no."""
    if dataset in registry.names("datasets"):
        return bool(getattr(registry.module("datasets", dataset), "MIRRORED", False))
    with suppress(UsageError):  # A revision that is compared may not know the dataset.
        return bool(registry.declared("datasets", dataset).get("MIRRORED"))
    return False


def augmentation(dataset: str, *, flip: str = "random", crop: int = 0) -> dict[str, object]:
    """Return the settings of image augmentation: `flip` for photos, shifts by up to `crop` pixels for all.

    Digits, and other images whose class may change when mirrored, are never mirrored.
    """
    settings: dict[str, object] = {"flip": flip if mirrored(dataset) else "none", "crop": crop}
    return settings | {"crop_padding": "reflect"} if crop else settings
