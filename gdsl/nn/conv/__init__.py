"""Graph convolutions: each a program of the language and a thin class."""
