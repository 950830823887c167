"""The networks, one small file a family, behind one registry."""
