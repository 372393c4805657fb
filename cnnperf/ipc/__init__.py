"""How two processes talk: one is started, the other listens, and a line of JSON is a message."""
