"""The executable specification, over arrays: fp32 arithmetic, and the functions that the ops compute with it."""
