"""What of a store may go, and what has to, so that it takes no more than it may."""
