"""What a person can ask: the program's other first words (design.md 8)."""
