"""The rules of exact/ over tiles, in Triton; each module has the name of its counterpart there."""
