"""One question asked while somebody watches."""
