"""The order theory behind lattice pruning: units as elements of an order that their recurrent weights define.

`adjacency` makes a relation of the weights; `bits` packs and closes it; `order` gives classes, covers, heights, meets
and irreducibility; `fuzzy` is the same for degrees in 0..1, and `centrality` looks at the relation as a graph. The
definitions are the textbook ones (Davey and Priestley, Introduction to Lattices and Order, 2nd edition).
"""
