"""Truth boxes drawn by people: what they decided, proposals, merging, exchange with other tools."""
