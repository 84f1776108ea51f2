"""Training: the trainer, distillation, rounding in training, gradient noise, and fitting a layer to another."""
