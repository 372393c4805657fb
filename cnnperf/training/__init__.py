"""What `stages/train.py` is made of."""
