"""Wire protocols, one folder each; none knows another."""
