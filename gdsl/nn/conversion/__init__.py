"""Models with torch_geometric's layers, with ours in their place."""
