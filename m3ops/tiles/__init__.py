"""What kernels are made of beside arithmetic: tiles loaded, stored and cleared. Triton code and its constexprs."""
