"""Benches: one file per room, each op against the best torch ways and the roof of this machine."""
