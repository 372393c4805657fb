"""How a callable is timed."""
