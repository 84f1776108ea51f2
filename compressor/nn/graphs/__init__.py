"""Random graphs and the layered form in which a network is laid out on one."""
