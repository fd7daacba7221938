"""Models, each written once for every layout."""
