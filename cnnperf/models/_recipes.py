"""What the networks' training recipes share."""

from __future__ import annotations

from cnnperf import registry


def mirrored(dataset: str) -> bool:
    """Tell whether images may be mirrored, which a dataset's own file says by `MIRRORED`; one that does not may not."""
    return dataset in registry.names("datasets") and getattr(registry.module("datasets", dataset), "MIRRORED", False)


def augmentation(dataset: str, *, flip: str = "random", crop: int = 0) -> dict[str, object]:
    """Return the settings of image augmentation: `flip` for photos, shifts by up to `crop` pixels for all.

    Digits are never mirrored, nor is anything else whose class a mirror may change.
    """
    settings: dict[str, object] = {"flip": flip if mirrored(dataset) else "none", "crop": crop}
    return settings | {"crop_padding": "reflect"} if crop else settings
