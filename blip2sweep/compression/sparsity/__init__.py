"""Weight sparsity: which weights of a layer become zero, and what that saves. Planning reads this, so no torch."""

MAGNITUDE, WANDA = "magnitude", "wanda"
METHODS = (MAGNITUDE, WANDA)

UNSTRUCTURED, TWO_OF_FOUR = "unstructured", "2of4"
PATTERNS = (UNSTRUCTURED, TWO_OF_FOUR)
GROUP, ZEROS = 4, 2  # of 2:4, along a row
RATIO = 0.5  # of the weights of a row that become zero, by default
