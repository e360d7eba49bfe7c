"""What bench-finance is made of: the texts, and streams of them."""
