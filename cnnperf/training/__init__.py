"""Parts of `stages/train.py`."""
