"""Parts of `stages/infer.py` and `stages/export.py`."""
