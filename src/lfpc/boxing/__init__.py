"""Truth boxes drawn by people: decisions, proposals, merging, exchange with other tools."""
