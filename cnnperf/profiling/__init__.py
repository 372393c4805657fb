"""Parts of `stages/profile.py`."""
