"""What `stages/infer.py` and `stages/export.py` are made of."""
