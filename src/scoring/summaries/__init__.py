"""Results of many runs in one table: means, pictures, published figures, and what recipes cost."""
