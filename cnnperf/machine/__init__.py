"""The thing that is measured on: what it is, what limits this process, and what disturbs it."""
