"""Pages for people: reports of data sets and runs, and a viewer; no torch."""
