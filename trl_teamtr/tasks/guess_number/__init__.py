"""Guess-a-number with split hints: each agent is told a different part of the feedback."""
