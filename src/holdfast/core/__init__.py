"""The mechanism; it knows no concrete map."""
