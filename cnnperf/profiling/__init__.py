"""What `stages/profile.py` is made of."""
