"""How well do networks on random graphs learn a task, and do properties of the graph tell?

After Darji, "Investigating Sparsity in Recurrent Neural Networks" (arXiv 2407.20601), the experiments with randomly
structured networks and performance predictors. What differs: the task's model stays around the stack, so that its
embedding keeps its width and a readout leads from the last layer to the old size; and predictors are judged by repeated
cross-validation instead of one split.
"""
