"""The benches: one file each, found by looking into this folder. Each has add(parser), which gives its options and sets run and show."""
