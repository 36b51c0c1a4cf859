"""One module for each in-tree plugin; each knows only its own names and fields."""
