"""The one exception of this package."""


class AmdgcnError(Exception):
    """Something this interpreter does not model, or that the program must not do. It names the instruction."""
