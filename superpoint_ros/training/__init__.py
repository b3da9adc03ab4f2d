"""Training from nothing: Synthetic Shapes → MagicPoint → homographic adaptation → SuperPoint."""
