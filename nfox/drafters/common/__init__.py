"""What methods share. A package, so that it is not taken for a method."""
