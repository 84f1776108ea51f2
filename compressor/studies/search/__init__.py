"""Search over recipes: say what the phone can take, get the file that fits."""
