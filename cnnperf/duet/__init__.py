"""Two simultaneous processes that take turns, so that a disturbance affects both alike."""
