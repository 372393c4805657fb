"""The children's side: modules that the parent starts by `python -m`; no other package imports them."""
