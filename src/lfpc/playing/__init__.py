"""Many episodes, pictures or jobs at once."""
