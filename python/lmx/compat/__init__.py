"""The faces of other libraries over lmx: the same names, other machinery."""
