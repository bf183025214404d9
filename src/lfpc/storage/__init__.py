"""What outlives a killed process."""
