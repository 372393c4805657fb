"""The children's side: each file is run by `python -m`, and none is imported from outside this package."""
