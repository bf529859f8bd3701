"""What plans are made of: where rows lie, how many of them a program takes. Pure functions on the host."""
