"""Small synthetic tasks that tell architectures apart, and the networks that are trained on them.

`tasks` draws the data, `architecture` says what replaces what and builds it small, `training` trains one
network on one task and scores it.
"""
