"""One module per target; a recipe's `format: NAME` is `exporters.NAME`, which holds `Options` and `export`."""
