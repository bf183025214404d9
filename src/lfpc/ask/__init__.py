"""One question in front of a person: as files, or live."""
