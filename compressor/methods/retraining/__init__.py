"""What `retrain` consists of: each file has the options of one idea, and what they do. `Retrain` inherits them all."""
