"""Files with weights in 8 or 4 bits: which matrices, in which form, and proof that the file still computes the model."""
