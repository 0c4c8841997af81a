"""What a user writes and what a pipeline answers: frozen, validated values that survive JSON."""
