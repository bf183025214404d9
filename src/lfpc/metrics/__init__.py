"""Numbers of one episode, and what many episodes add up to."""
