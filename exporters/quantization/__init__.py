"""Files with weights in 8 or 4 bits: which matrices, in which form, and proof that they compute the model."""
