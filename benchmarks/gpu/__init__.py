"""What a GPU computes and how fast, for `make gpu`: right first, then beside PyTorch."""
